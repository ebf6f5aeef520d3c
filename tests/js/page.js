"use strict";

const asked = new URLSearchParams(location.search);

// A tab of its own, closed with its connection open.
async function aWillComesWhenATabIsClosed(url) {
  const watcher = await open(mqtt, url, 5);
  await watcher.subscribeAsync("tab/#", { qos: 1 });
  const tab = window.open(`/page.html?tab=${encodeURIComponent(url)}`);
  check(tab, "no second tab");
  const there = await watcher.next();
  check(there.topic === "tab/open", `got ${there.topic}`);
  tab.close();
  const message = await watcher.next();
  check(message.topic === "tab/will" && message.payload.toString() === "closed", `got ${message.topic}`);
  await watcher.endAsync();
}

async function aPageOfAnotherOriginIsRefused(url) {
  let came = true;
  await open(mqtt, url, 5).catch(() => { came = false; });
  check(!came, "a page of an origin that is not listed came in");
}

async function theSubprotocolIsMqtt(url) {
  const spoken = (protocols) =>
    within(
      new Promise((resolve) => {
        const socket = new WebSocket(url, protocols);
        socket.onopen = () => { resolve(socket.protocol); socket.close(); };
        socket.onerror = () => resolve("refused");
      }),
      "an upgrade",
    );
  check((await spoken(["mqtt"])) === "mqtt", "mqtt is not spoken");
  check((await spoken(["chat", "mqtt"])) === "mqtt", "mqtt is not found among others");
  check((await spoken(["chat"])) === "refused", "chat is spoken");
}

async function main() {
  const lines = [];
  const report = (line) => lines.push(line);
  const one = (conversation, url) =>
    conversation(url).then(
      () => report(`ok ${conversation.name} (${url})`),
      (error) => report(`FAILED ${error.stack || error} ${conversation.name} (${url})`),
    );
  await converse(mqtt, asked.getAll("open"), report);
  for (const url of asked.getAll("open")) {
    await one(theSubprotocolIsMqtt, url);
    await one(aWillComesWhenATabIsClosed, url);
  }
  await one(aPageOfAnotherOriginIsRefused, asked.get("shut"));
  await fetch("/result", { method: "POST", body: lines.join("\n") });
}

async function tab() {
  const client = await open(mqtt, asked.get("tab"), 5, { will: { topic: "tab/will", payload: "closed", qos: 1 } });
  await client.publishAsync("tab/open", "", { qos: 1 });
}

(asked.has("tab") ? tab() : main()).catch((error) => fetch("/result", { method: "POST", body: `FAILED ${error.stack || error}` }));
