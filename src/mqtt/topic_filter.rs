//! Topic Filters (4.7) and Shared Subscription filters (4.8.2).

/// A parsed Topic Filter, perhaps of a Shared Subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFilter<'a> {
    /// ShareName of `$share/NAME/FILTER`.
    pub share_name: Option<&'a str>,
    /// The filter itself, without `$share/NAME/`.
    pub filter: &'a str,
}

/// Parses and validates; `None` when not a valid Topic Filter (or Shared Subscription form).
pub fn parse(_text: &str) -> Option<TopicFilter<'_>> {
    todo!()
}

/// Whether `topic` (a Topic Name) is matched by `filter`; wildcards never match a first level beginning with `$` `[MQTT-4.7.2-1]`.
pub fn matches(_filter: &str, _topic: &str) -> bool {
    todo!()
}
