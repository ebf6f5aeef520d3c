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
    level: Box<str>,
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

    fn add_child(&mut self, parent: usize, level: &str) -> usize {
        let fresh = Node { parent: parent as u32, level: level.into(), ..Node::default() };
        let index = if let Some(index) = self.free.pop() {
            if let Some(slot) = self.nodes.get_mut(index as usize) {
                *slot = fresh;
            }
            index
        } else {
            self.nodes.push(fresh);
            (self.nodes.len() - 1) as u32
        };
        if let Some(node) = self.nodes.get_mut(parent) {
            match level {
                "+" => node.plus = index,
                "#" => node.hash = index,
                _ => drop(node.children.insert(level.into(), index)),
            }
        }
        index as usize
    }

    /// What stands at `filter`, made if absent.
    pub(super) fn entry(&mut self, filter: &str) -> Option<&mut S> {
        let mut node = ROOT;
        for level in filter.split('/') {
            node = match self.child(node, level) {
                Some(child) => child,
                None => self.add_child(node, level),
            };
        }
        self.nodes.get_mut(node).map(|node| &mut node.stand)
    }

    fn find(&self, filter: &str) -> Option<usize> {
        filter.split('/').try_fold(ROOT, |node, level| self.child(node, level))
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
            let (parent, level) = (node.parent as usize, std::mem::take(&mut node.level));
            *node = Node::default();
            self.free.push(index as u32);
            if let Some(node) = self.nodes.get_mut(parent) {
                match &*level {
                    "+" => node.plus = NONE,
                    "#" => node.hash = NONE,
                    other => drop(node.children.remove(other)),
                }
            }
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
            let level_end = memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
            let next = at + level_end as u32 + 1;
            let level = rest.get(..level_end).unwrap_or_default();
            if let Some(child) = node.children.get(level) {
                stack.push((*child, next));
            }
            if wildcards {
                if node.plus != NONE {
                    stack.push((node.plus, next));
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
            levels.push(&*node.level);
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
}
