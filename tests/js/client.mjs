// The real `phoenix` client in Node, driven by the Python test: commands in on stdin, reports out on stdout, JSON lines.
// Usage: node client.mjs FOLDER_WITH_NODE_MODULES WS_URL TOKEN

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, url, token] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { Socket } = require("phoenix");
const WebSocket = require("ws");

const report = (what, more = {}) => console.log(JSON.stringify({ what, ...more }));

const socket = new Socket(url.replace(/\/websocket$/, ""), { transport: WebSocket, params: token ? { token } : {} });
socket.onOpen(() => report("open"));
socket.onClose((event) => report("close", { code: event.code }));

const channels = new Map();

const commands = {
  join({ topic }) {
    const channel = socket.channel(topic);
    channels.set(topic, channel);
    channel.onMessage = (event, payload) => {
      if (!event.startsWith("phx_") && !event.startsWith("chan_reply_")) report("event", { topic, event, payload });
      return payload;
    };
    channel.onError(() => report("channel_error", { topic }));
    channel
      .join()
      .receive("ok", () => report("joined", { topic }))
      .receive("error", (response) => report("join_refused", { topic, response }));
  },
  push({ topic, event, payload }) {
    const push = channels.get(topic).push(event, payload);
    for (const status of ["ok", "error"]) {
      push.receive(status, (response) => report("reply", { event, status, response }));
    }
  },
  push_binary({ topic, event, bytes }) {
    const data = Uint8Array.from(bytes).buffer;
    channels.get(topic).push(event, data).receive("ok", (response) => {
      report("reply", { event, status: "ok", response: [...new Uint8Array(response)] });
    });
  },
  leave({ topic }) {
    channels.get(topic).leave().receive("ok", () => report("left", { topic }));
  },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { command, ...options } = JSON.parse(line);
  commands[command](options);
}).on("close", () => process.exit(0));

socket.connect();
