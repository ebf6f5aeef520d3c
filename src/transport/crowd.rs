//! Who waits to come in, and who goes first when there are too many: those of the address that has most.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Somebody who has not said yet who it is.
pub(super) struct Stranger {
    /// How many came before it.
    pub(super) number: u64,
    pub(super) address: Arc<str>,
}

/// Those who wait, by number, which tells who came first.
pub(super) struct Crowd<T> {
    waiting: BTreeMap<u64, (Arc<str>, T)>,
    by_address: HashMap<Arc<str>, usize>,
}

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), by_address: HashMap::new() }
    }
}

impl<T> Crowd<T> {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn enter(&mut self, number: u64, address: Arc<str>, waiting: T) {
        *self.by_address.entry(Arc::clone(&address)).or_default() += 1;
        self.waiting.insert(number, (address, waiting));
    }

    pub(super) fn leave(&mut self, number: u64) -> Option<(Arc<str>, T)> {
        let (address, waiting) = self.waiting.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some((address, waiting))
    }

    /// Counts it for another address from now on.
    pub(super) fn rename(&mut self, number: u64, address: &Arc<str>) {
        if let Some((_, waiting)) = self.leave(number) {
            self.enter(number, Arc::clone(address), waiting);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<str>)> {
        self.waiting.iter().map(|(number, (address, _))| (*number, address))
    }

    /// So many at most of the address that has most, the oldest first; among equals the address whose oldest came first.
    pub(super) fn send_away(&mut self, count: usize) -> Vec<(Arc<str>, T)> {
        let most = self.by_address.values().copied().max();
        let has_most = |address: &Arc<str>| self.by_address.get(address).copied() == most;
        let busiest = self.waiting.values().map(|(address, _)| address).find(|address| has_most(address)).cloned();
        let of_it = self.waiting.iter().filter(|(_, (address, _))| Some(address) == busiest.as_ref());
        let numbers: Vec<u64> = of_it.take(count).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.leave(number)).collect()
    }
}

/// What counts as one address of `peer` (as logged, with its port): of IPv6 the network, since a single customer has all of it.
pub(super) fn address(peer: &str) -> Arc<str> {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)).into()
        }
        _ => host.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_most_go_first() {
        let mut crowd = Crowd::default();
        for (number, peer) in
            ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.2:2", "[2001:db8::1]:1", "2001:db8::2:7", "192.0.2.2:3"].iter().enumerate()
        {
            crowd.enter(number as u64, address(peer), number);
        }
        let order: Vec<usize> = std::iter::from_fn(|| crowd.send_away(1).pop()).map(|(_, number)| number).collect();
        assert_eq!(order, [1, 2, 3, 0, 4, 5], "three of 192.0.2.2, two of the network, then whoever came first");
        assert_eq!(crowd.len(), 0);
    }

    #[test]
    fn who_leaves_counts_no_more() {
        let mut crowd = Crowd::default();
        for number in 0..3 {
            crowd.enter(number, address("192.0.2.1:1"), ());
        }
        crowd.enter(3, address("192.0.2.2:1"), ());
        crowd.enter(4, address("192.0.2.2:2"), ());
        assert!(crowd.leave(0).is_some() && crowd.leave(1).is_some() && crowd.leave(1).is_none());
        let gone = crowd.send_away(5);
        assert!(gone.len() == 2 && gone.iter().all(|(address, ())| &**address == "192.0.2.2"), "{gone:?}");
        assert_eq!(crowd.len(), 1);
    }

    #[test]
    fn who_turns_out_to_be_somebody_else_counts_there_and_keeps_its_turn() {
        let mut crowd = Crowd::default();
        for number in 0..5 {
            crowd.enter(number, address("192.0.2.1:1"), number);
        }
        for number in [1, 3, 4, 7] {
            crowd.rename(number, &address("192.0.2.2:1"));
        }
        assert_eq!(crowd.len(), 5);
        let order: Vec<u64> = std::iter::from_fn(|| crowd.send_away(1).pop()).map(|(_, number)| number).collect();
        assert_eq!(order, [1, 0, 3, 2, 4]);
    }
}
