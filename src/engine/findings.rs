//! What is known of rumqttd 0.20, and what became of each finding under darner (docs/engines.md is made from this table).
