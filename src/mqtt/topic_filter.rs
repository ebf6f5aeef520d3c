//! Topic Filters (4.7) and Shared Subscription filters (4.8.2).

use super::topic_name::LEVELS_MAX;

/// A parsed Topic Filter, perhaps of a Shared Subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFilter<'a> {
    /// ShareName of `$share/NAME/FILTER`.
    pub share_name: Option<&'a str>,
    /// The filter itself, without `$share/NAME/`.
    pub filter: &'a str,
}

/// Parses and validates; `None` when not a valid Topic Filter (or Shared Subscription form).
pub fn parse(text: &str) -> Option<TopicFilter<'_>> {
    let Some(shared) = text.strip_prefix("$share/") else {
        return is_valid(text).then_some(TopicFilter { share_name: None, filter: text });
    };
    // `[MQTT-4.8.2-1]` and `[MQTT-4.8.2-2]`
    let (share_name, filter) = shared.split_once('/')?;
    let valid = !share_name.is_empty() && !share_name.contains(['+', '#']) && is_valid(filter);
    valid.then_some(TopicFilter { share_name: Some(share_name), filter })
}

/// Wildcards fill a level and `#` is the last one `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`; at least one character `[MQTT-4.7.3-1]`.
fn is_valid(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > usize::from(u16::MAX) || filter.split('/').count() > LEVELS_MAX {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "+" => {}
            "#" => return levels.peek().is_none(),
            level if level.contains(['+', '#']) => return false,
            _ => {}
        }
    }
    true
}

/// Whether `topic` (a Topic Name) is matched by `filter`; wildcards never match a first level beginning with `$` `[MQTT-4.7.2-1]`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter_levels, mut topic_levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter_levels.next(), topic_levels.next()) {
            // `#` takes the parent level as well: `sport/#` matches `sport` (4.7.1.2).
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_valid_or_not() {
        for filter in ["#", "+", "/", "a", "a/#", "+/a", "+/+", "/+", "a//b", "$SYS/#", "$share", "a b", "+/a/#"] {
            assert_eq!(parse(filter), Some(TopicFilter { share_name: None, filter }), "{filter}");
        }
        for filter in ["", "a#", "a/#/b", "a+", "+a", "a/b+/c", "##", "++", "#/", "a/##"] {
            assert_eq!(parse(filter), None, "{filter}");
        }
        assert!(parse(&"/".repeat(LEVELS_MAX - 1)).is_some());
        assert!(parse(&"/".repeat(LEVELS_MAX)).is_none());
    }

    #[test]
    fn shared_filters_name_their_share() {
        assert_eq!(parse("$share/g/a/+"), Some(TopicFilter { share_name: Some("g"), filter: "a/+" }));
        assert_eq!(parse("$share/g//"), Some(TopicFilter { share_name: Some("g"), filter: "/" }));
        for filter in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a", "$share/g/a#"] {
            assert_eq!(parse(filter), None, "{filter}");
        }
    }

    #[test]
    fn filters_match_topics() {
        let matching = [
            ("a", "a"),
            ("#", "a/b/c"),
            ("#", "/"),
            ("a/#", "a"),
            ("a/#", "a/"),
            ("a/+", "a/"),
            ("a/+/c", "a/b/c"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/+", "$SYS/a"),
            ("a/+/#", "a/b"),
        ];
        for (filter, topic) in matching {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        let different = [
            ("a", "b"),
            ("a", "a/"),
            ("a", "A"),
            ("+", "/a"),
            ("+", "a/b"),
            ("a/+", "a"),
            ("#", "$SYS/a"),
            ("+/a", "$SYS/a"),
            ("a/b", "a"),
            ("a/+/#", "a"),
        ];
        for (filter, topic) in different {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
