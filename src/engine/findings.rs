//! What is known of rumqttd 0.20, and what became of each finding under darner. docs/engines.md is made from this table.

use std::fmt::Write as _;

use crate::conf::engine_limits::LIMITS;

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It cannot happen.
    Guarded,
    /// It stays, as far as said.
    Limit,
}

pub struct Finding {
    /// What a broker of rumqttd alone does.
    pub alone: &'static str,
    /// Where, in its sources.
    pub at: &'static str,
    pub outcome: Outcome,
    /// What darner does about it.
    pub here: &'static str,
    /// A script of tests/conversations, or a function of the tests.
    pub shown_by: &'static str,
}

const fn guarded(alone: &'static str, at: &'static str, here: &'static str, shown_by: &'static str) -> Finding {
    Finding { alone, at, outcome: Outcome::Guarded, here, shown_by }
}

const fn limit(alone: &'static str, at: &'static str, here: &'static str, shown_by: &'static str) -> Finding {
    Finding { alone, at, outcome: Outcome::Limit, here, shown_by }
}

pub const FINDINGS: &[Finding] = &[
    // What ends it.
    guarded(
        "a topic whose first character is not ASCII ends the router's thread",
        "protocol/mod.rs:658",
        "every topic and filter goes below `t/`",
        "10-engine/topics-of-any-characters",
    ),
    guarded(
        "a client id with `/`, `+`, `#` or `$` is refused, and the second time stops its listener for good",
        "server/broker.rs:544",
        "links have names of their own",
        "10-engine/client-ids-of-any-characters",
    ),
    guarded(
        "a member of a share that leaves with a message unacknowledged ends the router's thread",
        "router/routing.rs:512",
        "shares are darner's own and never reach the router",
        "06-shared/member-leaves",
    ),
    guarded(
        "CONNACK, UNSUBACK or AUTH from a client panics its task, before any login",
        "protocol/v5/mod.rs:429",
        "packets are decoded by darner",
        "01-connect/server-packets-from-a-client",
    ),
    guarded(
        "a subscriber with a backlog that says DISCONNECT ends the router's thread: its late Ready meets a freed place",
        "router/scheduler.rs:63",
        "a link leaves when nothing about it is under way",
        "engine::subscribers_leave_amid_a_backlog_and_others_take_their_places",
    ),
    guarded(
        "the end of one connection hits the next one that got its place",
        "router/routing.rs:245",
        "the same; and nothing is said about a link that has left",
        "engine::subscribers_leave_amid_a_backlog_and_others_take_their_places",
    ),
    guarded(
        "beyond max_connections the refused client's next try stops the listener for good",
        "router/routing.rs:297",
        "max_connections is darner's; beyond 4096 sessions darner routes by itself",
        "broker::outside::beyond_its_limits_the_router_is_not_told",
    ),
    guarded(
        "a PUBLISH with properties panics the task of its version 3 subscriber",
        "protocol/v4/mod.rs:364",
        "packets are encoded by darner",
        "10-engine/properties-do-not-reach-version-3",
    ),
    guarded(
        "when its router is dead the process lives on, and its ports accept",
        "router/routing.rs:155",
        "the process ends with 75 at once, and is started again",
        "engine::endings::a_router_that_dies_ends_the_process_at_once",
    ),
    guarded(
        "with some fifteen clients it stops serving after a while, until it is restarted (its issue 928)",
        "router/routing.rs",
        "so does it when nothing comes back for 10 seconds",
        "supervisor::a_broker_whose_router_stands_still_is_started_again",
    ),
    guarded(
        "making a link blocks its thread until the router answers",
        "link/local.rs:127",
        "links are made on a thread of their own",
        "engine::endings::a_router_that_stands_still_ends_the_process",
    ),
    guarded(
        "the router waits for an event although connections are ready, when the first of them has left",
        "router/scheduler.rs:38",
        "it is nudged while anything is outstanding",
        "engine::subscribers_leave_amid_a_backlog_and_others_take_their_places",
    ),
    guarded(
        "an UNSUBSCRIBE behind a PUBLISH of the same batch leaves the subscription served on, twice after the next SUBSCRIBE",
        "router/routing.rs:705",
        "it goes in a batch of its own",
        "engine::link::an_unsubscribe_waits_for_the_publish_before_it",
    ),
    guarded(
        "an idle TCP connection on a TLS port keeps everybody out",
        "server/broker.rs:403",
        "TLS, WebSockets and PROXY are darner's",
        "tls::silent_clients_hold_up_nobody",
    ),
    guarded(
        "an idle TCP connection on a WebSocket port keeps everybody out",
        "server/broker.rs:423",
        "the same",
        "websocket::silent_clients_hold_up_nobody_and_version_5_is_spoken",
    ),
    guarded(
        "a client that publishes what it gets, more slowly than it comes, stops for good (its issue 1025)",
        "-",
        "nothing of a client is in the router but what is on its way",
        "engine::freezes::a_slow_client_that_publishes_what_it_gets_neither_stops_nor_misses_any",
    ),
    // What loses.
    guarded(
        "acknowledged messages are dropped when a subscriber lags by more than the log",
        "segments/mod.rs",
        "no more than 32 KiB are in the router at a time, and its logs keep 48; publishers wait, sessions queue",
        "engine::nothing_is_lost_on_the_way_through_the_router",
    ),
    guarded(
        "so are those that come in one batch and are more than the log",
        "segments/mod.rs",
        "the same; wills, which nobody's reading can be stopped for, wait until all has come back",
        "engine::wills::wills_of_many_at_once_all_come_and_publishers_go_on",
    ),
    guarded(
        "the retained messages of one subscription stop at 200, or 100",
        "router/routing.rs:1467",
        "retained messages are darner's",
        "engine::all_retained_messages_come",
    ),
    guarded(
        "an empty message without RETAIN removes the retained one",
        "router/routing.rs:1230",
        "the same; and no payload is empty to the router",
        "10-engine/empty-payload-without-retain",
    ),
    guarded(
        "a QoS 2 flow that a reconnect breaks loses the message and disconnects",
        "router/routing.rs:812",
        "flows are darner's: what the router carries has no QoS",
        "03-publish/redelivery-qos2",
    ),
    guarded(
        "a QoS 2 message sent again is delivered twice",
        "router/routing.rs:600",
        "the same",
        "03-publish/qos2-duplicate-is-one-message",
    ),
    guarded(
        "a client that takes Topic Aliases is sent messages under the wrong topic",
        "router/routing.rs:1544",
        "aliases are darner's",
        "03-publish/topic-alias-to-the-client",
    ),
    guarded("sessions never expire", "router/graveyard.rs", "sessions are darner's", "01-connect/session-expiry"),
    guarded(
        "the will of a take-over is the new one, and the old one is lost",
        "router/routing.rs:355",
        "wills are darner's",
        "05-will/new-will-replaces",
    ),
    limit(
        "nothing survives a restart",
        "-",
        "retained messages and sessions do, but for messages that are in the router's memory at a crash",
        "engine::sessions_and_retained_messages_survive_the_broker",
    ),
    // Who may do what.
    guarded("any client may publish and subscribe everywhere", "-", "permissions are darner's, at the way in and out", "07-access/read"),
    guarded(
        "a wrong password is answered by a closed connection",
        "link/remote.rs:198",
        "CONNACK is darner's",
        "01-connect/anonymous-refused",
    ),
    guarded(
        "the console has no password, and looking at a session deletes it",
        "router/routing.rs:1669",
        "of the crate, only the router and its links are used",
        "engine::of_the_crate_only_the_router_is_used",
    ),
    guarded(
        "passwords stand in its configuration in clear",
        "lib.rs:150",
        "the password file has hashes",
        "passwd::options::every_hash_is_written_in_its_format",
    ),
    guarded(
        "of a file of authorities only the first is read",
        "server/tls.rs:222",
        "TLS is darner's",
        "tls::each_authority_of_the_file_counts",
    ),
    guarded("there are no revocation lists", "server/tls.rs", "the same", "tls::a_revoked_certificate_is_refused"),
    // What the specification says.
    guarded(
        "a filter that begins with `$` disconnects; there is no `$SYS`",
        "router/routing.rs:1736",
        "these are darner's",
        "02-subscribe/sys-topics",
    ),
    guarded(
        "QoS is raised to that of the subscription",
        "router/routing.rs:1564",
        "it is the lower one at delivery",
        "02-subscribe/delivered-qos",
    ),
    guarded("a Keep Alive of 0 is refused", "link/remote.rs:203", "keep alive is darner's", "01-connect/keep-alive-off"),
    guarded("keep alive is not heeded while messages go to the client", "link/remote.rs:262", "the same", "01-connect/keep-alive"),
    guarded("UNSUBACK is missing, or sent twice", "router/routing.rs:731", "it is darner's", "02-subscribe/unsubscribe-unknown-v311"),
    guarded("a SUBSCRIBE again gets no retained messages", "router/routing.rs:983", "the same", "04-retain/handling"),
    guarded(
        "acknowledgements in another order disconnect",
        "router/iobufs.rs:147",
        "the router is told of none",
        "10-engine/acknowledged-in-another-order",
    ),
    guarded("a PUBREL of the connection before disconnects", "router/routing.rs:812", "the same", "03-publish/pubrel-unknown"),
    guarded(
        "MQTT 3.1 is refused, and version 5 needs a port of its own",
        "protocol/v4/connect.rs:36",
        "CONNECT is decoded by darner",
        "10-engine/three-versions-on-one-port",
    ),
    guarded(
        "version 5 is not spoken over WebSockets",
        "server/broker.rs",
        "the same",
        "websocket::silent_clients_hold_up_nobody_and_version_5_is_spoken",
    ),
    guarded("PUBLISH to `a/+/x` is delivered", "-", "the same", "03-publish/wildcard-topic"),
    guarded("`a/#/b` is granted", "-", "the same", "02-subscribe/invalid-filters-v311"),
    guarded("a second CONNECT is ignored", "-", "the same", "01-connect/second-connect"),
    guarded("a client that is taken over is not told (0x8E)", "-", "the same", "01-connect/take-over-v5"),
    guarded("No Local is ignored", "router/routing.rs", "the publisher travels in front of the payload", "02-subscribe/no-local"),
    guarded(
        "Retain As Published is ignored",
        "router/routing.rs",
        "RETAIN travels in front of the payload",
        "02-subscribe/retain-as-published",
    ),
    guarded(
        "a SUBSCRIBE again without a Subscription Identifier keeps the old one",
        "router/routing.rs:954",
        "the router's identifiers are the numbers of darner's subscriptions, and clients never see them",
        "02-subscribe/subscription-identifiers",
    ),
    guarded(
        "a Message Expiry Interval ends in the log of the router only, and paho's test of it fails",
        "router/logs.rs:200",
        "expiry is darner's, and the router is told of none",
        "03-publish/message-expiry",
    ),
    guarded(
        "shares of one name are one group whatever their filters, and any UNSUBSCRIBE leaves them all",
        "router/routing.rs:738",
        "shares are darner's",
        "06-shared/same-name-for-two-filters",
    ),
    guarded(
        "no more than 100 messages are in flight to a client, whatever it takes",
        "router/iobufs.rs:18",
        "windows are darner's",
        "engine::freezes::more_than_100_messages_are_in_flight_to_a_client",
    ),
    guarded("Receive Maximum is ignored", "router/iobufs.rs:14", "windows are darner's", "03-publish/receive-maximum"),
    guarded("Maximum Packet Size is ignored", "-", "the same", "03-publish/maximum-packet-size"),
    guarded("Retain Handling is ignored", "router/routing.rs:1010", "retained messages are darner's", "04-retain/handling-3"),
    guarded("SIGTERM ends it by the signal, and nobody is told", "-", "the process is darner's", "engine::the_end_is_told_and_is_0"),
    // What it costs.
    limit(
        "a client id costs 1.3 kB for ever",
        "router/graveyard.rs:52",
        "names of links are used again: as many as there were sessions at a time",
        "engine::rumqttd::a_name_is_used_again",
    ),
    limit(
        "a filter costs 6.7 kB and the log's last messages for ever, and each new topic is compared with all of them",
        "router/logs.rs:158",
        "512 filters, 20,000 topics and 4 MiB of names at most, with four segments of 16 KiB each (a segment may be one larger message); \
         beyond, darner routes by itself",
        "broker::outside::beyond_its_limits_the_router_is_not_told",
    ),
    guarded(
        "each message in a log keeps its publisher's read buffer alive, 8 KiB for a small one (its issue 1001)",
        "router/routing.rs",
        "topic and payload are copied, each on its own",
        "engine::translate::a_message_in_the_router_holds_on_to_nothing_else",
    ),
    limit(
        "a connection costs 44 kB",
        "router/iobufs.rs:28",
        "for 4096 sessions at most",
        "broker::outside::beyond_its_limits_the_router_is_not_told",
    ),
];

fn row(text: &mut String, cells: &[&str]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// docs/engines.md up to what was measured.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Engines\n\n\
         The engine is what carries a message from its publisher to the sessions of its subscribers. `engine = \"core\"` in darner.toml (or\n\
         `DARNER_ENGINE=core`) is darner's own, and the default. `engine = \"rumqttd\"` is the router of the rumqttd crate, version 0.20, which\n\
         is spawned once and to which every session has a link of its own. This page is made from the tables that the program and its tests\n\
         read (`src/engine/findings.rs`, `src/conf/engine_limits.rs`).\n\n\
         With either engine, transports (TCP, TLS, WebSockets, unix sockets, PROXY), CONNECT in all three versions, logins, permissions,\n\
         limits, log lines, sessions with their queues and flows, wills, retained messages, shared subscriptions and `$SYS` are darner's.\n\
         A message that plain subscriptions match goes into the router and comes back once for each of them. darner keeps a ledger of what\n\
         must come back: publishers wait while more than 32 KiB is out there, wills until all of it has come back, and a subscription that the router\n\
         has not confirmed yet is served by darner itself. A router that owes something and gives nothing back for\n\
         ten seconds, or whose thread has died, ends the process with exit code 75, so that the supervisor starts it again.\n\n\
         The compose examples (first start, health check, users added and reloaded, read-only volumes, a certificate obtained and renewed with a restart\n\
         amid messages) are driven in Docker with either engine by the same lines, `tests/it/compose_examples.rs`.\n\n\
         ## What the rumqttd engine cannot honour\n\n\
         `darner check` and the log of each start list what applies to the configuration at hand. What loses something that the\n\
         configuration promises to keep is refused, unless darner.toml says\n\n\
         ```toml\nengine = \"rumqttd\"\n\n[rumqttd]\naccept_limits = true\n```\n\n\
         | option or guarantee | what is not kept | |\n|---|---|---|\n",
    );
    for limit in LIMITS {
        row(&mut text, &[&format!("`{}`", limit.of), limit.what, if limit.loses { "refused" } else { "said" }]);
    }
    text.push_str(
        "\nOptions that open or close access are honoured all the same, and so are `max_connections`, `max_queued_messages`,\n\
         `max_inflight_messages`, `persistent_client_expiration` and whatever else is about sessions.\n\n\
         ## What was found in rumqttd 0.20\n\n\
         Each row is shown by a test against the real binary or, where it names a module, by one beside the code.\n\n\
         | rumqttd alone | where | under darner | how | shown by |\n|---|---|---|---|---|\n",
    );
    for finding in FINDINGS {
        let outcome = if finding.outcome == Outcome::Guarded { "guarded" } else { "limit" };
        row(&mut text, &[finding.alone, &format!("`{}`", finding.at), outcome, finding.here, &format!("`{}`", finding.shown_by)]);
    }
    text
}
