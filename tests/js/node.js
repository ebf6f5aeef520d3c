// `node node.js URL...`: the conversations in node; exits with 1 if any went wrong.
"use strict";

const { converse } = require("./conversations.js");
const mqtt = require("mqtt");

let failed = 0;
converse(mqtt, process.argv.slice(2), (line) => {
  console.log(line);
  if (!line.startsWith("ok")) failed += 1;
}).then(() => {
  console.log(failed === 0 ? "all conversations went well" : `${failed} conversations went wrong`);
  process.exit(failed === 0 ? 0 : 1);
});
