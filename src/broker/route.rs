//! The one way of a message: retain → match → permit → deliver. Clients, wills, `$SYS` and other shards all enter here.

use std::sync::Arc;

use super::Broker;
use super::interface::{Effect, Outbox, ShardId, Time};
use super::message::{Identity, Message, Publication};
use super::post::Letter;
use super::record::Record;
use super::session::{Offer, Terms};
use super::shard::Interest;
use super::subscriptions::{ShareGroup, Subscriber};
use crate::access::Access;
use crate::mqtt::{ProtocolVersion, Qos};
use crate::notice::Notice;

/// Space that one routing needs and the next can use again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    matched: Vec<Subscriber>,
    remote: Vec<ShardId>,
    shares: Vec<(Interest, Vec<ShardId>)>,
    stack: Vec<(u32, u32)>,
}

/// Bytes that one routing lays out before those who come later wait until their sockets have taken something.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// Bytes of one message that one session gets at once through several subscriptions.
const BURST_BYTES_MAX: usize = 256 << 10;

impl Broker {
    /// The ACL's word on publishing; `$SYS` and `$share` are the broker's own.
    pub(super) fn may_publish(&self, identity: &Identity, topic: &str) -> bool {
        if topic.starts_with('$') && is_reserved(topic) {
            return false;
        }
        self.permits(identity, topic, Access::Write)
    }

    pub(super) fn permits(&self, identity: &Identity, topic: &str, access: Access) -> bool {
        if identity.trusted {
            return true;
        }
        match self.settings.security.get(identity.security) {
            Some(tables) => {
                tables.acl.as_ref().is_none_or(|acl| acl.permits(&identity.client_id, identity.username.as_deref(), topic, access))
            }
            // Security settings that are not there permit nothing.
            None => false,
        }
    }

    /// Takes a message its whole way. `from` is the publishing session, for No Local. True when anybody subscribes.
    pub(super) fn route(&mut self, publication: &mut Publication<'_>, from: Option<u32>, now: Time, out: &mut Outbox) -> bool {
        if publication.retain {
            self.retain(publication.keep(), out);
        }
        if from.is_none() && self.defers(publication) {
            return true;
        }
        self.carry(publication, from, now, out)
    }

    /// Match → permit → deliver.
    pub(super) fn carry(&mut self, publication: &mut Publication<'_>, from: Option<u32>, now: Time, out: &mut Outbox) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.matched.clear();
        self.match_local(publication.topic, &mut scratch);
        if self.shards > 1 {
            self.match_remote(publication, &mut scratch, out);
        }
        let matched = !scratch.matched.is_empty() || !scratch.remote.is_empty();
        if self.outside.is_some() {
            self.hand_over(publication, &mut scratch.matched, from, out);
        }
        self.merge_for_v3(&mut scratch.matched);
        self.deliver_all(publication, &scratch.matched, from, now, out);
        self.scratch = scratch;
        matched
    }

    /// Stores a retained message here and tells the other shards, which have a copy each.
    pub(super) fn retain(&mut self, message: Arc<Message>, out: &mut Outbox) {
        for to in self.other_shards() {
            self.send_letter(to, Letter::Retained { message: Arc::clone(&message) }, !message.topic.starts_with('$'), out);
        }
        self.keep_retained(message, out);
    }

    pub(super) fn keep_retained(&mut self, message: Arc<Message>, out: &mut Outbox) {
        let lasts = self.persists && !message.topic.starts_with('$');
        if lasts && !message.payload.is_empty() {
            out.effects.push(Effect::Persist(Record::Retained { message: Arc::clone(&message) }));
        } else if lasts && self.retained.contains(&message.topic) {
            out.effects.push(Effect::Persist(Record::RetainedCleared { topic: message.topic.clone() }));
        }
        self.retained.store(message);
    }

    /// Whether a session would keep a message of this topic.
    pub(super) fn reaches_recorded(&mut self, topic: &str) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut keys = Vec::new();
        self.local.visit_matches(topic, &mut scratch.stack, |stand| {
            let members = stand.groups.values().flat_map(|group| &group.members);
            keys.extend(stand.subscribers.iter().chain(members).map(|subscriber| subscriber.session));
        });
        self.scratch = scratch;
        keys.into_iter().any(|key| self.sessions.get(key).is_some_and(|session| session.is_recorded))
    }

    /// Plain subscribers, and one member of each share that nobody on another shard could take, too.
    fn match_local(&mut self, topic: &str, scratch: &mut Scratch) {
        let Scratch { matched, stack, shares, .. } = scratch;
        let several = self.shards > 1;
        let sessions = &self.sessions;
        shares.clear();
        self.local.visit_matches(topic, stack, |stand| {
            matched.extend_from_slice(&stand.subscribers);
            for group in stand.groups.values_mut() {
                if several {
                    shares.push((Interest { share_name: Some(group.name.clone()), filter: group.filter.clone() }, Vec::new()));
                } else {
                    matched.extend(next_member(group, |session| sessions.get(session).is_some_and(|session| session.wire.is_some())));
                }
            }
        });
    }

    /// Sends the message to the shards that want it; of the shards with members of a share, one is chosen, this one included.
    fn match_remote(&mut self, publication: &mut Publication<'_>, scratch: &mut Scratch, out: &mut Outbox) {
        let Scratch { remote, shares, stack, matched } = scratch;
        remote.clear();
        // Shares found locally have an empty list, which stands for this shard.
        let mut candidates: Vec<(Interest, Vec<ShardId>)> = shares.drain(..).map(|(interest, _)| (interest, vec![self.shard])).collect();
        self.remote.visit_matches(publication.topic, stack, |stand| {
            remote.extend_from_slice(&stand.shards);
            for (interest, shards) in &stand.shares {
                match candidates.iter_mut().find(|(known, _)| known == interest) {
                    Some((_, known)) => known.extend_from_slice(shards),
                    None => candidates.push((interest.clone(), shards.clone())),
                }
            }
        });
        let mut chosen: Vec<(ShardId, Interest)> = Vec::new();
        for (interest, shards) in candidates {
            self.share_turn = self.share_turn.wrapping_add(1);
            let Some(shard) = shards.get(self.share_turn % shards.len().max(1)) else { continue };
            if *shard == self.shard {
                matched.extend(self.take_turn(&interest));
            } else {
                chosen.push((*shard, interest));
            }
        }
        remote.extend(chosen.iter().map(|(shard, _)| *shard));
        let plain: Vec<ShardId> = remote.clone();
        remote.sort_unstable();
        remote.dedup();
        for to in remote.iter() {
            let shares: Vec<Interest> = chosen.iter().filter(|(shard, _)| shard == to).map(|(_, interest)| interest.clone()).collect();
            // A shard stands once in the list for each filter and once for each share.
            let plain = plain.iter().filter(|shard| *shard == to).count() > shares.len();
            let lasts = publication.qos != Qos::AtMostOnce && !publication.topic.starts_with('$');
            self.send_letter(*to, Letter::Publish { message: publication.keep(), plain, shares }, lasts, out);
        }
    }

    /// The member of a share on this shard whose turn it is.
    fn take_turn(&mut self, interest: &Interest) -> Option<Subscriber> {
        let sessions = &self.sessions;
        let chosen = self.local.change(&interest.filter, |stand| {
            let group = stand.groups.get_mut(interest.share_name.as_ref()?)?;
            next_member(group, |session| sessions.get(session).is_some_and(|session| session.wire.is_some()))
        });
        chosen.flatten()
    }

    /// A message from another shard, already retained and matched there.
    pub(super) fn route_from_shard(&mut self, message: &Arc<Message>, plain: bool, shares: &[Interest], now: Time, out: &mut Outbox) {
        if message.is_expired(now) {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.matched.clear();
        if plain {
            self.match_local(&message.topic, &mut scratch);
        }
        for interest in shares {
            scratch.matched.extend(self.take_turn(interest));
        }
        self.merge_for_v3(&mut scratch.matched);
        let mut publication = Publication::of(message);
        self.deliver_all(&mut publication, &scratch.matched, None, now, out);
        self.scratch = scratch;
    }

    /// Overlapping subscriptions of one client: version 5 gets a message for each, as mosquitto does; version 3 gets one, with the
    /// highest QoS `[MQTT-3.3.5-1]`, unless `allow_duplicate_messages`.
    pub(super) fn merge_for_v3(&self, matched: &mut Vec<Subscriber>) {
        if matched.len() < 2 {
            return;
        }
        matched.sort_by_key(|subscriber| subscriber.session);
        if self.settings.conf.allow_duplicate_messages {
            return;
        }
        matched.dedup_by(|later, kept| {
            let same = later.session == kept.session
                && self.sessions.get(kept.session).is_some_and(|session| session.version != ProtocolVersion::V5);
            if same {
                kept.options.qos = kept.options.qos.max(later.options.qos);
            }
            same
        });
    }

    /// `matched` has the subscriptions of one session side by side. Thousands of them may match; what goes beyond a burst waits in the
    /// session's queue, which has limits, and not in the outbox.
    fn deliver_all(&mut self, publication: &mut Publication<'_>, matched: &[Subscriber], from: Option<u32>, now: Time, out: &mut Outbox) {
        let mut size = 0;
        let mut copies = (None, 0_usize);
        for subscriber in matched {
            copies = (Some(subscriber.session), if copies.0 == Some(subscriber.session) { copies.1 + 1 } else { 0 });
            if copies.1.saturating_mul(size) > BURST_BYTES_MAX || out.arena.len() > OUTBOX_BYTES_MAX {
                self.wait_for_drain(subscriber.session, out);
            }
            let before = out.arena.len();
            self.deliver(publication, *subscriber, from, now, out);
            size = size.max(out.arena.len() - before);
        }
    }

    pub(super) fn deliver(&mut self, publication: &mut Publication<'_>, to: Subscriber, from: Option<u32>, now: Time, out: &mut Outbox) {
        if to.options.no_local && from == Some(to.session) {
            return; // [MQTT-3.8.3-3]
        }
        let retain = to.options.retain_as_published && publication.retain; // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
        self.offer(publication, to, retain, 0, now, out);
    }

    /// Permit → deliver, for live messages and the replay of retained ones (`extra` more of them may wait).
    pub(super) fn offer(
        &mut self,
        publication: &mut Publication<'_>,
        to: Subscriber,
        retain: bool,
        extra: usize,
        now: Time,
        out: &mut Outbox,
    ) {
        if self.has_acl {
            let Some(session) = self.sessions.get(to.session) else { return };
            if !self.permits(&session.identity, publication.topic, Access::Read) {
                return;
            }
        }
        let conf = &*self.settings.conf;
        let Some(session) = self.sessions.get_mut(to.session) else { return };
        let qos = if conf.upgrade_outgoing_qos { to.options.qos } else { publication.qos.min(to.options.qos) };
        let terms = Terms { limits: &conf.limits, queue_qos0: conf.queue_qos0_messages, extra };
        let would_wait = session.wire.as_ref().is_none_or(|wire| wire.congested);
        let outcome = if self.memory_full && qos == Qos::AtMostOnce && would_wait {
            Offer::Dropped
        } else if let Some(mount_point) = session.mount_point.as_deref() {
            let Some(topic) = publication.topic.strip_prefix(mount_point) else { return };
            let mut unmounted = Publication::new(topic, publication.payload, publication.properties);
            unmounted.qos = publication.qos;
            unmounted.retain = publication.retain;
            unmounted.expires_at = publication.expires_at;
            unmounted.publisher = publication.publisher;
            session.offer(&mut unmounted, (qos, retain, to.identifier), terms, now, out)
        } else {
            session.offer(publication, (qos, retain, to.identifier), terms, now, out)
        };
        match outcome {
            Offer::Sent => self.counters.publish_sent(publication.payload.len()),
            Offer::Queued | Offer::Discarded => {}
            Offer::Dropped => {
                self.counters.publish_dropped += 1;
                if !session.is_dropping {
                    session.is_dropping = true;
                    out.note(Notice::Dropping { client_id: session.identity.client_id.to_string() });
                }
            }
        }
    }
}

/// mosquitto: nobody publishes to `$SYS` but bridges their state, and nobody to a share.
fn is_reserved(topic: &str) -> bool {
    let of_bridge = |rest: &str| rest.strip_suffix("/state").is_some_and(|name| !name.contains('/'));
    if topic.strip_prefix("$SYS/broker/connection/").is_some_and(of_bridge) {
        return false;
    }
    topic == "$SYS" || topic.starts_with("$SYS/") || topic.starts_with("$share/")
}

/// Round robin among a share's members; those who are connected go first, so that nobody's queue fills while another could work.
fn next_member(group: &mut ShareGroup, is_connected: impl Fn(u32) -> bool) -> Option<Subscriber> {
    let count = group.members.len();
    let at = (0..count)
        .map(|step| (group.turn + step) % count)
        .find(|at| group.members.get(*at).is_some_and(|member| is_connected(member.session)));
    let at = at.unwrap_or(group.turn % count.max(1));
    group.turn = at + 1;
    group.members.get(at).copied()
}
