// MQTT.js against a broker, in node and in a browser: each conversation is one promise. `converse(mqtt, urls, more)` gives back a line for each.
"use strict";

const PATIENCE = 10000;

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function check(truth, what) {
  if (!truth) throw new Error(what);
}

// A client whose messages can be waited for.
async function open(mqtt, url, protocolVersion, more = {}) {
  const client = mqtt.connect(url, { protocolVersion, reconnectPeriod: 0, connectTimeout: PATIENCE, rejectUnauthorized: false, ...more });
  const came = [];
  const waiting = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload, qos: packet.qos, retain: packet.retain, properties: packet.properties };
    const waiter = waiting.shift();
    if (waiter) waiter(message);
    else came.push(message);
  });
  client.next = () => within(came.length ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)), "a message");
  client.connack = await within(
    new Promise((resolve, reject) => {
      client.once("connect", resolve);
      client.once("error", reject);
      client.once("close", () => reject(new Error("closed before CONNACK")));
    }),
    "CONNACK",
  );
  return client;
}

const CONVERSATIONS = {
  async eachQosArrives(mqtt, url, version, name) {
    const subscriber = await open(mqtt, url, version);
    const publisher = await open(mqtt, url, version);
    for (const granted of [0, 1, 2]) {
      const grants = await subscriber.subscribeAsync(`${name}/${granted}`, { qos: granted });
      check(grants[0].qos === granted, `granted ${grants[0].qos}`);
      for (const sent of [0, 1, 2]) {
        await within(publisher.publishAsync(`${name}/${granted}`, `${sent}`, { qos: sent }), "the acknowledgement");
        const message = await subscriber.next();
        check(message.payload.toString() === `${sent}`, `got ${message.payload}`);
        check(message.qos === Math.min(granted, sent), `QoS ${message.qos} for ${sent} to ${granted}`);
      }
    }
    await Promise.all([subscriber.endAsync(), publisher.endAsync()]);
  },

  async largeMessagesPass(mqtt, url, version, name) {
    const client = await open(mqtt, url, version);
    await client.subscribeAsync(name, { qos: 1 });
    for (const length of [125, 126, 65535, 65536, 300000]) {
      await client.publishAsync(name, "x".repeat(length), { qos: 1 });
      const { payload } = await client.next();
      check(payload.length === length && payload.toString().replace(/x/g, "") === "", `${payload.length} of ${length} bytes`);
    }
    await client.endAsync();
  },

  async retainedMessagesAreGiven(mqtt, url, version, name) {
    const client = await open(mqtt, url, version);
    await client.publishAsync(name, "kept", { qos: 1, retain: true });
    await client.subscribeAsync(name, { qos: 1 });
    const message = await client.next();
    check(message.retain && message.payload.toString() === "kept", `got ${message.payload}, retain ${message.retain}`);
    await client.publishAsync(name, "", { qos: 1, retain: true });
    await client.endAsync();
  },

  async propertiesTravel(mqtt, url, version, name) {
    if (version !== 5) return;
    const client = await open(mqtt, url, version);
    check(client.connack.properties.topicAliasMaximum >= 1, "no topic aliases");
    await client.subscribeAsync(name, { qos: 1, properties: { subscriptionIdentifier: 7 } });
    await client.publishAsync(name, "x", { qos: 1, properties: { contentType: "text/plain", userProperties: { a: ["1", "2"] } } });
    const { properties } = await client.next();
    check(properties.contentType === "text/plain", "no content type");
    check(JSON.stringify(properties.userProperties.a) === '["1","2"]', "no user properties");
    check(properties.subscriptionIdentifier === 7, "no subscription identifier");
    await client.endAsync();
  },

  async aWillComesWhenTheStreamBreaks(mqtt, url, version, name) {
    const watcher = await open(mqtt, url, version);
    await watcher.subscribeAsync(`${name}/#`, { qos: 1 });
    const will = { topic: `${name}/will`, payload: "gone", qos: 1 };
    await (await open(mqtt, url, version, { will })).endAsync();
    (await open(mqtt, url, version, { will: { ...will, topic: `${name}/second` } })).stream.destroy();
    const message = await watcher.next();
    check(message.topic === `${name}/second` && message.payload.toString() === "gone", `got ${message.topic}`);
    await watcher.endAsync();
  },
};

// Every conversation in both versions over each of the addresses; lines beginning with "ok" or "FAILED".
async function converse(mqtt, urls, report) {
  let number = 0;
  for (const url of urls) {
    for (const version of [4, 5]) {
      for (const [title, conversation] of Object.entries(CONVERSATIONS)) {
        const said = await conversation(mqtt, url, version, `js${++number}`).then(
          () => "ok",
          (error) => `FAILED ${error.stack || error}`,
        );
        report(`${said} ${title} (version ${version}, ${url})`);
      }
    }
  }
}

if (typeof module !== "undefined") module.exports = { converse, open, within, check };
