"""paho-mqtt against a broker: `interop.py PORT [tcp|websockets] [CAFILE]`. Prints one line a conversation; exits with 1 if any went wrong."""

import queue
import sys
import time
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
TRANSPORT = sys.argv[2] if len(sys.argv) > 2 else "tcp"
# With one, TLS is spoken, to the name that the tests' certificates are for.
CAFILE = sys.argv[3] if len(sys.argv) > 3 else None
HOST = "localhost" if CAFILE else "127.0.0.1"
PATIENCE = 10
# Long enough for a message that must not come to have come, on a loaded machine too.
SILENCE = 0.7


class Client:
    """A paho client whose callbacks end in queues."""

    def __init__(self, client_id="", version=mqtt.MQTTv311, clean=True, will=None, connect=None, username=None):
        arguments = {"client_id": client_id, "protocol": version, "transport": TRANSPORT}
        if version != mqtt.MQTTv5:
            arguments["clean_session"] = clean
        self.version = version
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, **arguments)
        self.connacks, self.messages, self.acks, self.closed = queue.Queue(), queue.Queue(), queue.Queue(), queue.Queue()
        self.paho.on_connect = lambda _c, _u, flags, reason, properties: self.connacks.put((flags, reason, properties))
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda _c, _u, mid, reasons, properties: self.acks.put((mid, reasons))
        self.paho.on_unsubscribe = lambda _c, _u, mid, reasons, properties: self.acks.put((mid, reasons))
        self.paho.on_disconnect = lambda _c, _u, flags, reason, properties: self.closed.put(reason)
        self.paho.reconnect_delay_set(600, 600)
        if CAFILE:
            self.paho.tls_set(CAFILE)
        if will:
            self.paho.will_set(**will)
        if username:
            self.paho.username_pw_set(username, "x")
        more = {}
        if version == mqtt.MQTTv5:
            more = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, **(connect or {}))}
        self.paho.connect(HOST, PORT, 30, **more)
        self.paho.loop_start()
        self.flags, self.reason, self.connack = self.connacks.get(timeout=PATIENCE)

    def subscribe(self, topic, qos=0, **more):
        _, mid = self.paho.subscribe(topic, qos, **more)
        return self.acknowledged(mid)

    def unsubscribe(self, topic):
        _, mid = self.paho.unsubscribe(topic)
        return self.acknowledged(mid)

    def acknowledged(self, mid):
        while True:
            got, reasons = self.acks.get(timeout=PATIENCE)
            if got == mid:
                return reasons

    def publish(self, topic, payload=b"", qos=0, retain=False, **more):
        info = self.paho.publish(topic, payload, qos, retain, **more)
        info.wait_for_publish(PATIENCE)
        assert info.is_published(), "no acknowledgement"
        return info

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def nothing_comes(self):
        try:
            message = self.messages.get(timeout=SILENCE)
        except queue.Empty:
            return
        raise AssertionError(f"unexpected: {message.topic} {message.payload!r}")

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def vanish(self):
        """Closes the socket without DISCONNECT."""
        self.paho.loop_stop()
        self.paho._sock_close()


def properties(packet, **values):
    result = Properties(packet)
    for name, value in values.items():
        setattr(result, name, value)
    return result


def equal(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


BOTH = [mqtt.MQTTv311, mqtt.MQTTv5]
CONVERSATIONS = []


def conversation(*versions):
    def register(function):
        CONVERSATIONS.extend((function, version) for version in versions)
        return function

    return register


@conversation(mqtt.MQTTv31, *BOTH)
def each_qos_arrives_at_the_lower_of_both(version, name):
    subscriber, publisher = Client(f"{name}s", version), Client(f"{name}p", version)
    for granted in range(3):
        subscriber.subscribe(f"{name}/{granted}", granted)
    for granted in range(3):
        for sent in range(3):
            publisher.publish(f"{name}/{granted}", f"{sent}", sent)
            message = subscriber.next()
            equal((message.topic, message.payload, message.qos, message.retain), (f"{name}/{granted}", b"%d" % sent, min(granted, sent), False))
    subscriber.nothing_comes()


@conversation(*BOTH)
def order_is_kept_for_many_messages(version, name):
    subscriber, publisher = Client("", version), Client("", version)
    for qos in range(3):
        subscriber.subscribe(f"{name}/{qos}", qos)
        # paho's own queue would hide a window that does not move.
        infos = [publisher.paho.publish(f"{name}/{qos}", str(number), qos) for number in range(300)]
        infos[-1].wait_for_publish(PATIENCE)
        equal([int(subscriber.next().payload) for _ in range(300)], list(range(300)))


@conversation(*BOTH)
def large_and_empty_payloads_pass(version, name):
    client = Client("", version)
    client.subscribe(name, 1)
    large = bytes(range(256)) * 4096
    for payload in (large, b"", b"\0"):
        client.publish(name, payload, 1)
        equal(client.next().payload, payload)


@conversation(*BOTH)
def wildcards_match_levels(version, name):
    client = Client("", version)
    client.subscribe(f"{name}/+/c")
    client.subscribe(f"{name}/x/#")
    for topic, comes in ((f"{name}/a/c", True), (f"{name}/a/b/c", False), (f"{name}/x", True), (f"{name}/x/y/z", True), (f"{name}/a/d", False)):
        client.publish(topic, topic)
        if comes:
            equal(client.next().topic, topic)
    client.nothing_comes()
    client.unsubscribe(f"{name}/x/#")
    client.publish(f"{name}/x", "no more")
    client.nothing_comes()


@conversation(*BOTH)
def retained_messages_are_given_replaced_and_cleared(version, name):
    publisher = Client("", version)
    publisher.publish(f"{name}/a", "old", 1, retain=True)
    publisher.publish(f"{name}/a", "new", 1, retain=True)
    publisher.publish(f"{name}/b", "not retained", 1)
    subscriber = Client("", version)
    subscriber.subscribe(f"{name}/#", 1)
    message = subscriber.next()
    equal((message.topic, message.payload, message.retain), (f"{name}/a", b"new", True))
    publisher.publish(f"{name}/a", "live", 1, retain=True)
    equal(subscriber.next().retain, False)
    publisher.publish(f"{name}/a", b"", 1, retain=True)
    equal(subscriber.next().payload, b"")
    late = Client("", version)
    late.subscribe(f"{name}/#", 1)
    late.nothing_comes()


@conversation(*BOTH)
def a_will_is_sent_when_its_client_vanishes_and_only_then(version, name):
    watcher = Client("", version)
    watcher.subscribe(f"{name}/#", 1)
    will = {"topic": f"{name}/will", "payload": "gone", "qos": 1, "retain": True}
    Client(f"{name}1", version, will=will).leave()
    watcher.nothing_comes()
    Client(f"{name}2", version, will=will).vanish()
    message = watcher.next()
    equal((message.topic, message.payload, message.qos), (f"{name}/will", b"gone", 1))
    late = Client("", version)
    late.subscribe(f"{name}/will")
    equal(late.next().retain, True)
    watcher.publish(f"{name}/will", b"", 1, retain=True)


@conversation(*BOTH)
def a_session_keeps_subscriptions_and_messages(version, name):
    persistent = {"clean": False, "connect": {"SessionExpiryInterval": 100}}
    client = Client(name, version, **persistent)
    equal(client.flags.session_present, False)
    client.subscribe(f"{name}/1", 1)
    client.subscribe(f"{name}/2", 2)
    client.leave()
    publisher = Client("", version)
    for number in range(5):
        publisher.publish(f"{name}/1", f"one {number}", 1)
        publisher.publish(f"{name}/2", f"two {number}", 2)
    client = Client(name, version, **persistent)
    equal(client.flags.session_present, True)
    got = [client.next() for _ in range(10)]
    equal([m.payload for m in got if m.qos == 1], [b"one %d" % n for n in range(5)])
    equal([m.payload for m in got if m.qos == 2], [b"two %d" % n for n in range(5)])
    client.leave()
    client = Client(name, version, clean=True)
    equal(client.flags.session_present, False)
    publisher.publish(f"{name}/1", "to nobody", 1)
    client.nothing_comes()


@conversation(*BOTH)
def a_second_connection_takes_the_client_id_over(version, name):
    first = Client(name, version)
    second = Client(name, version)
    reason = first.closed.get(timeout=PATIENCE)
    if version == mqtt.MQTTv5:
        equal(reason.value, 0x8E)
    first.paho.loop_stop()
    second.subscribe(name)
    second.publish(name, "here")
    equal(second.next().payload, b"here")


@conversation(mqtt.MQTTv5)
def properties_travel_with_the_message(version, name):
    client = Client("", version)
    client.subscribe(name, options=SubscribeOptions(qos=1), properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=77))
    sent = properties(
        PacketTypes.PUBLISH, PayloadFormatIndicator=1, MessageExpiryInterval=60, ContentType="text/plain", ResponseTopic="back",
        CorrelationData=b"\0\1\2", UserProperty=[("a", "1"), ("a", "2"), ("b", "ü")],
    )
    client.publish(name, "x", 1, properties=sent)
    got = client.next().properties
    equal((got.PayloadFormatIndicator, got.ContentType, got.ResponseTopic, got.CorrelationData), (1, "text/plain", "back", b"\0\1\2"))
    equal(got.UserProperty, [("a", "1"), ("a", "2"), ("b", "ü")])
    equal(got.SubscriptionIdentifier, [77])
    assert 0 < got.MessageExpiryInterval <= 60


@conversation(mqtt.MQTTv5)
def a_topic_alias_stands_for_its_topic(version, name):
    subscriber, publisher = Client("", version), Client("", version)
    assert publisher.connack.TopicAliasMaximum >= 1
    subscriber.subscribe(name, 1)
    alias = properties(PacketTypes.PUBLISH, TopicAlias=1)
    publisher.publish(name, "with", 1, properties=alias)
    # paho wants a topic; one byte less on the wire is what the alias is for.
    publisher.paho.publish.__globals__["_raise_for_invalid_topic"] = lambda _topic: None
    publisher.publish("", "without", 1, properties=alias)
    for payload in (b"with", b"without"):
        message = subscriber.next()
        equal((message.topic, message.payload), (name, payload))


@conversation(mqtt.MQTTv5)
def subscription_options_are_kept(version, name):
    client, other = Client("", version), Client("", version)
    other.publish(f"{name}/r", "kept", 1, retain=True)
    client.subscribe(f"{name}/own", options=SubscribeOptions(qos=1, noLocal=True))
    client.publish(f"{name}/own", "mine", 1)
    client.nothing_comes()
    other.publish(f"{name}/own", "theirs", 1)
    equal(client.next().payload, b"theirs")
    client.subscribe(f"{name}/r", options=SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=2))
    client.nothing_comes()
    other.publish(f"{name}/r", "again", 1, retain=True)
    equal(client.next().retain, True)
    client.subscribe(f"{name}/r", options=SubscribeOptions(qos=1, retainHandling=1))
    client.nothing_comes()
    client.subscribe(f"{name}/r", options=SubscribeOptions(qos=1, retainHandling=0))
    equal(client.next().payload, b"again")
    other.publish(f"{name}/r", b"", 1, retain=True)


@conversation(mqtt.MQTTv5)
def a_shared_subscription_gives_each_message_to_one(version, name):
    members = [Client("", version) for _ in range(3)]
    for member in members:
        member.subscribe(f"$share/group/{name}", 1)
    publisher = Client("", version)
    for number in range(30):
        publisher.publish(name, str(number), 1)
    deadline = time.monotonic() + PATIENCE
    while sum(member.messages.qsize() for member in members) < 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    counts = [member.messages.qsize() for member in members]
    equal(sum(counts), 30)
    assert all(counts), f"one got nothing: {counts}"
    equal(sorted(int(member.next().payload) for member in members for _ in range(member.messages.qsize())), list(range(30)))


@conversation(mqtt.MQTTv5)
def messages_and_sessions_expire(version, name):
    client = Client(name, version, clean=False, connect={"SessionExpiryInterval": 100})
    client.subscribe(f"{name}/#", 1)
    client.leave()
    brief = Client(f"{name}-brief", version, clean=False, connect={"SessionExpiryInterval": 1})
    brief.leave()
    publisher = Client("", version)
    publisher.publish(f"{name}/short", "expired", 1, properties=properties(PacketTypes.PUBLISH, MessageExpiryInterval=1))
    publisher.publish(f"{name}/long", "kept", 1, properties=properties(PacketTypes.PUBLISH, MessageExpiryInterval=100))
    # Brokers may look for expired sessions only every few seconds.
    time.sleep(4)
    client = Client(name, version, clean=False, connect={"SessionExpiryInterval": 0})
    message = client.next()
    equal(message.payload, b"kept")
    assert message.properties.MessageExpiryInterval < 100
    client.nothing_comes()
    equal(Client(f"{name}-brief", version, clean=False).flags.session_present, False)


@conversation(mqtt.MQTTv5)
def a_will_waits_for_its_delay(version, name):
    watcher = Client("", version)
    watcher.subscribe(name, 1)
    will = {"topic": name, "payload": "late", "qos": 1, "properties": properties(PacketTypes.WILLMESSAGE, WillDelayInterval=2)}
    arguments = {"will": will, "connect": {"SessionExpiryInterval": 60}}
    Client(f"{name}1", version, **arguments).vanish()
    start = time.monotonic()
    equal(watcher.next().payload, b"late")
    assert time.monotonic() - start > 1, "too early"
    Client(f"{name}2", version, **arguments).vanish()
    back = Client(f"{name}2", version, clean=False, connect={"SessionExpiryInterval": 60})
    try:
        message = watcher.messages.get(timeout=3.5)
        raise AssertionError(f"the will of a client that came back: {message.payload!r}")
    except queue.Empty:
        back.leave()


@conversation(mqtt.MQTTv5)
def the_broker_says_what_it_grants(version, name):
    client = Client("", version)
    equal(client.reason.value, 0)
    assert client.connack.AssignedClientIdentifier
    equal([reason.value for reason in client.subscribe([(f"{name}/a", 0), (f"{name}/b", 1), (f"{name}/c", 2)])], [0, 1, 2])
    equal([reason.value for reason in client.unsubscribe([f"{name}/a", f"{name}/nothing"])], [0, 0x11])


@conversation(mqtt.MQTTv5)
def the_receive_maximum_of_a_client_is_respected(version, name):
    subscriber = Client("", version, connect={"ReceiveMaximum": 1})
    subscriber.subscribe(name, 2)
    publisher = Client("", version)
    for number in range(20):
        publisher.paho.publish(name, str(number), 2)
    equal([int(subscriber.next().payload) for _ in range(20)], list(range(20)))


@conversation(mqtt.MQTTv5)
def a_message_larger_than_the_client_takes_is_not_sent_to_it(version, name):
    small = Client("", version, connect={"MaximumPacketSize": 200})
    small.subscribe(name, 1)
    publisher = Client("", version)
    publisher.publish(name, "x" * 1000, 1)
    publisher.publish(name, "fits", 1)
    equal(small.next().payload, b"fits")


def main():
    failed = 0
    for number, (function, version) in enumerate(CONVERSATIONS):
        title = f"{function.__name__} (version {version})"
        try:
            function(version, f"t{number}")
            print(f"ok      {title}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {title}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CONVERSATIONS) - failed} of {len(CONVERSATIONS)} conversations went well")
    sys.stdout.flush()
    # Threads of clients that were left connected do not keep the process.
    import os

    os._exit(1 if failed else 0)


main()
