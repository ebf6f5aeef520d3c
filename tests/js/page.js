"use strict";

const asked = new URLSearchParams(location.search);

// A page of its own within this one, gone with its connection open. (Headless, Chromium loads nothing in a tab that a script opens.)
async function aWillComesWhenAPageIsClosed(url) {
  const watcher = await open(mqtt, url, 5);
  await watcher.subscribeAsync("page/#", { qos: 1 });
  const page = document.createElement("iframe");
  page.src = `/page.html?inner=${encodeURIComponent(url)}`;
  document.body.append(page);
  const there = await watcher.next();
  check(there.topic === "page/open", `got ${there.topic}`);
  page.remove();
  const message = await watcher.next();
  check(message.topic === "page/will" && message.payload.toString() === "closed", `got ${message.topic}`);
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
    await one(aWillComesWhenAPageIsClosed, url);
  }
  await one(aPageOfAnotherOriginIsRefused, asked.get("shut"));
  await fetch("/result", { method: "POST", body: lines.join("\n") });
}

async function inner() {
  const client = await open(mqtt, asked.get("inner"), 5, { will: { topic: "page/will", payload: "closed", qos: 1 } });
  await client.publishAsync("page/open", "", { qos: 1 });
}

(asked.has("inner") ? inner() : main()).catch((error) => fetch("/result", { method: "POST", body: `FAILED ${error.stack || error}` }));
