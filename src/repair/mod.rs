//! Self-repair of the volumes: observe (io) → plan (pure) → apply (io).
