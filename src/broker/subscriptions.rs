//! Which Topic Filters match a Topic Name: a tree of levels. What stands at a node is the caller's.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::mqtt::SubscriptionOptions;

/// What may stand at a node of the tree.
pub(super) trait Stand: Default {
    fn is_empty(&self) -> bool;
}

const ROOT: usize = 0;
const NONE: u32 = 0;

#[derive(Debug, Default)]
struct Node<S> {
    parent: u32,
    /// `+`, `#`, or levels without wildcards that nothing branches off between, so that a long filter is not a long way.
    label: Box<str>,
    /// By the first level of their labels.
    children: HashMap<Box<str>, u32>,
    /// Child `+`; 0 is none (the root is nobody's child).
    plus: u32,
    /// Child `#`.
    hash: u32,
    stand: S,
}

/// A tree of Topic Filters.
#[derive(Debug)]
pub(super) struct FilterTree<S> {
    nodes: Vec<Node<S>>,
    free: Vec<u32>,
}

impl<S: Stand> Default for FilterTree<S> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new() }
    }
}

fn is_wildcard(level: &str) -> bool {
    level == "+" || level == "#"
}

fn first_level(levels: &str) -> &str {
    levels.split('/').next().unwrap_or_default()
}

/// The levels that `filter` begins with and that can be one label.
fn label(filter: &str) -> &str {
    if is_wildcard(first_level(filter)) {
        return first_level(filter);
    }
    let mut end = 0;
    for level in filter.split('/').take_while(|level| !is_wildcard(level)) {
        end += level.len() + 1;
    }
    filter.get(..end.saturating_sub(1)).unwrap_or_default()
}

/// What is left of `levels` behind `prefix`, which they begin with: `None` where they do not, `Some(None)` where nothing is left.
fn behind<'a>(prefix: &str, levels: &'a str) -> Option<Option<&'a str>> {
    let rest = levels.strip_prefix(prefix)?;
    if rest.is_empty() { Some(None) } else { rest.strip_prefix('/').map(Some) }
}

/// The levels that both begin with.
fn common<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.split('/').zip(other.split('/')).take_while(|(one, other)| one == other);
    let end: usize = same.map(|(level, _)| level.len() + 1).sum();
    one.get(..end.saturating_sub(1)).unwrap_or_default()
}

impl<S: Stand> FilterTree<S> {
    fn child(&self, node: usize, level: &str) -> Option<usize> {
        let node = self.nodes.get(node)?;
        let child = match level {
            "+" => node.plus,
            "#" => node.hash,
            _ => *node.children.get(level)?,
        };
        (child != NONE).then_some(child as usize)
    }

    /// The child on the way to `filter`, and what of it is left behind that.
    fn step<'a>(&self, node: usize, filter: &'a str) -> Option<(usize, Option<&'a str>)> {
        let child = self.child(node, first_level(filter))?;
        let left = behind(&self.nodes.get(child)?.label, filter)?;
        Some((child, left))
    }

    fn add(&mut self, parent: usize, label: &str) -> usize {
        let fresh = Node { parent: parent as u32, label: label.into(), ..Node::default() };
        let index = if let Some(index) = self.free.pop() {
            if let Some(slot) = self.nodes.get_mut(index as usize) {
                *slot = fresh;
            }
            index
        } else {
            self.nodes.push(fresh);
            (self.nodes.len() - 1) as u32
        };
        self.set_child(parent, label, index);
        index as usize
    }

    fn set_child(&mut self, parent: usize, label: &str, child: u32) {
        let Some(node) = self.nodes.get_mut(parent) else { return };
        match label {
            "+" => node.plus = child,
            "#" => node.hash = child,
            _ if child == NONE => drop(node.children.remove(first_level(label))),
            _ => drop(node.children.insert(first_level(label).into(), child)),
        }
    }

    /// A node below `parent` for the levels that `filter` has in common with the child there, between them.
    fn split(&mut self, parent: usize, child: usize, filter: &str) -> usize {
        let Some(whole) = self.nodes.get(child).map(|node| node.label.clone()) else { return child };
        let shared = common(&whole, filter);
        let Some(Some(rest)) = behind(shared, &whole) else { return child };
        let between = self.add(parent, shared);
        if let Some(node) = self.nodes.get_mut(child) {
            node.label = rest.into();
            node.parent = between as u32;
        }
        self.set_child(between, rest, child as u32);
        between
    }

    /// What stands at `filter`, made if absent.
    pub(super) fn entry(&mut self, filter: &str) -> Option<&mut S> {
        let mut node = ROOT;
        let mut rest = Some(filter);
        while let Some(filter) = rest {
            (node, rest) = match (self.step(node, filter), self.child(node, first_level(filter))) {
                (Some(step), _) => step,
                (None, Some(child)) => {
                    let between = self.split(node, child, filter);
                    let label = self.nodes.get(between)?.label.clone();
                    (between, behind(&label, filter)?)
                }
                (None, None) => {
                    let label = label(filter);
                    (self.add(node, label), behind(label, filter)?)
                }
            };
        }
        self.nodes.get_mut(node).map(|node| &mut node.stand)
    }

    fn find(&self, filter: &str) -> Option<usize> {
        let (mut node, mut rest) = self.step(ROOT, filter)?;
        while let Some(filter) = rest {
            (node, rest) = self.step(node, filter)?;
        }
        Some(node)
    }

    /// Changes what stands at `filter`, if it exists, and removes nodes that are left empty.
    pub(super) fn change<R>(&mut self, filter: &str, change: impl FnOnce(&mut S) -> R) -> Option<R> {
        let index = self.find(filter)?;
        let result = change(&mut self.nodes.get_mut(index)?.stand);
        self.prune(index);
        Some(result)
    }

    fn prune(&mut self, mut index: usize) {
        while index != ROOT {
            let Some(node) = self.nodes.get_mut(index) else { return };
            if !node.stand.is_empty() || !node.children.is_empty() || node.plus != NONE || node.hash != NONE {
                return;
            }
            let (parent, label) = (node.parent as usize, std::mem::take(&mut node.label));
            *node = Node::default();
            self.free.push(index as u32);
            self.set_child(parent, &label, NONE);
            index = parent;
        }
    }

    /// Calls `visit` for whatever stands at each filter that matches `topic`. A wildcard in the first level does not match a topic
    /// that begins with `$` `[MQTT-4.7.2-1]`. `stack` is scratch space.
    pub(super) fn visit_matches(&mut self, topic: &str, stack: &mut Vec<(u32, u32)>, mut visit: impl FnMut(&mut S)) {
        let reserved = topic.starts_with('$');
        stack.clear();
        stack.push((ROOT as u32, 0));
        // The second number is where the next level begins in `topic`; one past its end means that no level is left.
        while let Some((index, at)) = stack.pop() {
            let Some(node) = self.nodes.get_mut(index as usize) else { continue };
            let wildcards = !(reserved && index as usize == ROOT);
            let hash = node.hash;
            let Some(rest) = topic.get(at as usize..) else {
                visit(&mut node.stand);
                // `a/#` matches its parent level `a`, too (4.7.1.2).
                if let Some(node) = self.nodes.get_mut(hash as usize).filter(|_| hash != NONE) {
                    visit(&mut node.stand);
                }
                continue;
            };
            let plus = node.plus;
            let level_end = memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
            let level = rest.get(..level_end).unwrap_or_default();
            if let Some(child) = node.children.get(level).copied()
                && let Some(label) = self.nodes.get(child as usize).map(|node| &*node.label)
                && behind(label, rest).is_some()
            {
                stack.push((child, at + label.len() as u32 + 1));
            }
            if wildcards {
                if plus != NONE {
                    stack.push((plus, at + level_end as u32 + 1));
                }
                if hash != NONE
                    && let Some(node) = self.nodes.get_mut(hash as usize)
                {
                    visit(&mut node.stand);
                }
            }
        }
    }

    /// Everything that stands somewhere, with its filter.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&str, &S)) {
        for (index, node) in self.nodes.iter().enumerate() {
            if !node.stand.is_empty() {
                visit(&self.filter_of(index), &node.stand);
            }
        }
    }

    fn filter_of(&self, mut index: usize) -> String {
        let mut levels = Vec::new();
        while index != ROOT {
            let Some(node) = self.nodes.get(index) else { break };
            levels.push(&*node.label);
            index = node.parent as usize;
        }
        levels.reverse();
        levels.join("/")
    }
}

/// One session's Subscription, as it stands in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscriber {
    /// Index of the session.
    pub(super) session: u32,
    pub(super) options: SubscriptionOptions,
    /// 0 is none.
    pub(super) identifier: u32,
    /// Its number with the router outside; 0 is none.
    pub(super) routed: u32,
}

/// The members of one Shared Subscription on this shard, in turn.
#[derive(Debug)]
pub(super) struct ShareGroup {
    pub(super) name: Box<str>,
    pub(super) filter: Box<str>,
    pub(super) members: Vec<Subscriber>,
    /// Whose turn it is among the members here.
    pub(super) turn: usize,
}

/// Local subscriptions at one filter.
#[derive(Debug, Default)]
pub(super) struct LocalStand {
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) groups: BTreeMap<Box<str>, ShareGroup>,
}

impl Stand for LocalStand {
    fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_empty()
    }
}

impl LocalStand {
    /// The list that a Subscription of this share name (or none) belongs to.
    fn list(&mut self, share_name: Option<&str>, filter: &str) -> &mut Vec<Subscriber> {
        let Some(name) = share_name else { return &mut self.subscribers };
        let new = || ShareGroup { name: name.into(), filter: filter.into(), members: Vec::new(), turn: 0 };
        &mut self.groups.entry(name.into()).or_insert_with(new).members
    }

    /// Adds or replaces; true when it is new.
    pub(super) fn put(&mut self, share_name: Option<&str>, filter: &str, subscriber: Subscriber) -> bool {
        let list = self.list(share_name, filter);
        if let Some(known) = list.iter_mut().find(|known| known.session == subscriber.session) {
            *known = subscriber;
            return false;
        }
        list.push(subscriber);
        true
    }

    /// Removes; true when it was there.
    pub(super) fn remove(&mut self, share_name: Option<&str>, filter: &str, session: u32) -> bool {
        let list = self.list(share_name, filter);
        let before = list.len();
        list.retain(|known| known.session != session);
        let removed = list.len() < before;
        if list.is_empty()
            && let Some(name) = share_name
        {
            self.groups.remove(name);
        }
        removed
    }

    /// Whether anybody here wants plain messages, or those of this share.
    pub(super) fn wants(&self, share_name: Option<&str>) -> bool {
        match share_name {
            None => !self.subscribers.is_empty(),
            Some(name) => self.groups.contains_key(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Names(Vec<String>);

    impl Stand for Names {
        fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn matches(tree: &mut FilterTree<Names>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.visit_matches(topic, &mut Vec::new(), |names| found.extend(names.0.clone()));
        found.sort();
        found
    }

    #[test]
    fn the_specifications_examples() {
        let mut tree = FilterTree::<Names>::default();
        let filters = [
            "sport/tennis/player1/#",
            "sport/#",
            "#",
            "sport/+",
            "+",
            "/+",
            "+/+",
            "sport/tennis/+",
            "$SYS/#",
            "$SYS/monitor/+",
            "+/monitor/Clients",
            "a//b",
        ];
        for filter in filters {
            tree.entry(filter).expect("an entry").0.push(filter.to_owned());
        }
        assert_eq!(matches(&mut tree, "sport/tennis/player1"), ["#", "sport/#", "sport/tennis/+", "sport/tennis/player1/#"]);
        assert_eq!(matches(&mut tree, "sport"), ["#", "+", "sport/#"]);
        assert_eq!(matches(&mut tree, "sport/"), ["#", "+/+", "sport/#", "sport/+"]);
        assert_eq!(matches(&mut tree, "/finance"), ["#", "+/+", "/+"]);
        assert_eq!(matches(&mut tree, "$SYS/monitor/Clients"), ["$SYS/#", "$SYS/monitor/+"]);
        assert_eq!(matches(&mut tree, "$SYS"), ["$SYS/#"]);
        assert_eq!(matches(&mut tree, "a//b"), ["#", "a//b"]);
        for filter in filters {
            assert_eq!(tree.change(filter, |names| names.0.pop()), Some(Some(filter.to_owned())));
        }
        assert_eq!(tree.free.len(), tree.nodes.len() - 1, "only the root is left");
    }

    /// The rules of 4.7, level by level.
    fn is_match(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && !filter.starts_with('$') && is_wildcard(first_level(filter)) {
            return false;
        }
        let (mut filters, mut levels) = (filter.split('/'), topic.split('/'));
        loop {
            match (filters.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn whatever_is_added_and_removed_the_tree_matches_as_the_rules_do() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let text = |words: &[&str], random: &mut dyn FnMut(u64) -> u64| {
            let depth = 1 + random(6);
            let mut levels: Vec<&str> = (0..depth).map(|_| words[random(words.len() as u64) as usize]).collect();
            if let Some(at) = levels.iter().position(|level| *level == "#") {
                levels.truncate(at + 1);
            }
            levels.join("/")
        };
        let mut tree = FilterTree::<Names>::default();
        let mut known: Vec<String> = Vec::new();
        for _ in 0..20_000 {
            let filter = text(&["a", "b", "ab", "", "+", "#", "$a"], &mut random);
            if let Some(at) = known.iter().position(|known| *known == filter) {
                known.swap_remove(at);
                assert_eq!(tree.change(&filter, |names| names.0.pop()), Some(Some(filter)));
            } else if known.len() < 60 {
                tree.entry(&filter).expect("an entry").0.push(filter.clone());
                known.push(filter);
            } else {
                let gone = known.swap_remove(random(60) as usize);
                assert_eq!(tree.change(&gone, |names| names.0.pop()), Some(Some(gone)));
            }
            let topic = text(&["a", "b", "ab", "", "$a"], &mut random);
            let mut expected: Vec<String> = known.iter().filter(|filter| is_match(filter, &topic)).cloned().collect();
            expected.sort();
            assert_eq!(matches(&mut tree, &topic), expected, "{topic:?} among {known:?}");
        }
        let mut listed = Vec::new();
        tree.for_each(|filter, _| listed.push(filter.to_owned()));
        listed.sort();
        known.sort();
        assert_eq!(listed, known);
        for filter in known {
            tree.change(&filter, |names| names.0.pop());
        }
        assert_eq!(tree.free.len(), tree.nodes.len() - 1, "only the root is left");
    }

    #[test]
    fn a_long_filter_is_a_short_way() {
        let mut tree = FilterTree::<Names>::default();
        let deep = format!("{}+/end", "a/".repeat(190));
        tree.entry(&deep).expect("an entry").0.push(deep.clone());
        assert_eq!(tree.nodes.len(), 1 + 3);
        let other = format!("{}x", "a/".repeat(100));
        tree.entry(&other).expect("an entry").0.push(other.clone());
        assert_eq!(tree.nodes.len(), 1 + 3 + 2);
        assert_eq!(matches(&mut tree, &format!("{}b/end", "a/".repeat(190))), [deep]);
        assert_eq!(matches(&mut tree, &other), std::slice::from_ref(&other));
        assert!(matches(&mut tree, &"a/".repeat(100)).is_empty());
    }
}
