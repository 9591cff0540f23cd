// The socket and its two channels, through Phoenix's own client. It tries again by itself, for as long as it takes.

import { Socket } from "./vendor/phoenix.mjs";

const SOCKET_PATH = "/socket";
const HEARTBEAT_MS = 15000;
// Viewers are back before publishers (infertool/net/timing.py), or they would miss what comes first.
const RECONNECT_MS = [10, 50, 100, 150, 200, 250, 500, 1000];

// Phoenix's client joins no topic again that the server has closed.
const REJOIN_MS = 1000;

// Calls `onState` with connecting, connected, disconnected or refused, and a few words; with connected also how many
// broadcasts the server sent that came meanwhile, and whether these are all. `on` is by topic and event.
export function connect({ on, onState }) {
  const socket = new Socket(SOCKET_PATH, {
    heartbeatIntervalMs: HEARTBEAT_MS,
    reconnectAfterMs: (tries) => RECONNECT_MS[Math.min(tries, RECONNECT_MS.length) - 1],
  });
  const joined = new Map(); // topic to the reply of its join
  const topics = Object.keys(on);
  const channels = new Map();
  const lost = (...those) => {
    those.forEach((topic) => joined.delete(topic));
    onState("disconnected", "disconnected, trying again");
  };
  const connected = () => {
    onState("connected", "connected", filled([...joined.values()]));
    // What a reply says of one gap is not said of the next one again, when only another topic was lost.
    for (const [topic, reply] of joined) joined.set(topic, { ...reply, missed: 0, complete: true });
  };
  socket.onClose(() => lost(...topics));
  socket.onError(() => lost(...topics));
  for (const topic of topics) {
    // A rejoin says which event was the last; the hub sends what was broadcast since (infertool/embedded/channel_server/channels.py).
    let last;
    const follow = () => {
      const channel = socket.channel(topic, () => (last === undefined ? {} : { after: last }));
      for (const [event, handle] of Object.entries(on[topic])) {
        channel.on(event, (payload) => {
          last = lastId(payload) ?? last;
          handle(payload);
        });
      }
      channels.set(topic, channel);
      channel.onError(() => lost(topic));
      channel.onClose(() => {
        lost(topic);
        setTimeout(follow, REJOIN_MS);
      });
      channel
        .join()
        .receive("ok", (reply) => {
          joined.set(topic, reply);
          if (joined.size === topics.length) connected();
        })
        .receive("error", (response) => onState("refused", `${topic} refused: ${response?.reason ?? "no reason given"}`));
    };
    follow();
  }
  socket.connect();
  // Says on a topic what was seen, if the server has asked for that.
  return (topic, seen) => {
    if (joined.get(topic)?.seen !== true) return;
    for (const each of seen) channels.get(topic).push("seen", each);
  };
}

function filled(replies) {
  const missed = replies.reduce((sum, reply) => sum + (reply?.missed ?? 0), 0);
  return { missed, complete: replies.every((reply) => reply?.complete === true) };
}

// The event_id of an event, or of the last result in a batch.
function lastId(payload) {
  const results = payload?.results;
  return (Array.isArray(results) && results.length > 0 ? results.at(-1) : payload)?.event_id;
}
