// The conversation of test_clients.py with Node's stompit. Usage: node node_stompit.js PORT QUEUE
const stompit = require("stompit");

const [port, queue] = [Number(process.argv[2]), process.argv[3]];
const options = {
  host: "127.0.0.1", port,
  connectHeaders: { host: "localhost", login: "admin", passcode: "admin", "heart-beat": "5000,5000" },
};
const connect = () => new Promise((done, fail) => stompit.connect(options, (e, client) => (e ? fail(e) : done(client))));
const close = (client) => new Promise((done, fail) => client.disconnect((e) => (e ? fail(e) : done())));

const send = (sender, destination, body, headers) => new Promise((done) => {
  const headersOut = { destination, persistent: "true", "content-type": "text/plain", ...headers };
  const writable = sender.send(headersOut, { onReceipt: done });
  writable.end(body);
});
const write = (sender, destination, body) => {
  const writable = sender.send({ destination, persistent: "true" });
  writable.end(body);
};
const finish = (transaction, deed) => new Promise((done) => transaction[deed]({ onReceipt: done }));

const receive = (client, destination, ack, count, each) => new Promise((done, fail) => {
  const got = [];
  const subscription = client.subscribe({ destination, ack }, (error, message) => {
    if (error) return fail(error);
    message.readString("utf-8", (problem, body) => {
      if (problem) return fail(problem);
      got.push({ body, redelivered: message.headers.redelivered || "", origin: message.headers["original-destination"] || "" });
      each(message, body);
      if (got.length === count) done({ got, subscription });
    });
  });
});

(async () => {
  const first = await connect();
  for (let n = 0; n < 5; n += 1) await send(first, `/queue/${queue}`, `m${n}`, { n: String(n) });
  const { got: received } = await receive(first, `/queue/${queue}`, "client-individual", 5, (message, body) => {
    if (body === "m0" || body === "m1") first.ack(message);
    if (body === "m2") first.nack(message);
  });
  await close(first);

  const second = await connect();
  const { got: again } = await receive(second, `/queue/${queue}`, "auto", 2, () => {});
  const { got: dead } = await receive(second, `/queue/DLQ.${queue}`, "auto", 1, () => {});
  const kept = second.begin({ transaction: "kept" });
  write(kept, `/queue/${queue}.tx`, "t0");
  write(kept, `/queue/${queue}.tx`, "t1");
  await finish(kept, "commit");
  const dropped = second.begin({ transaction: "dropped" });
  write(dropped, `/queue/${queue}.tx`, "t2");
  await finish(dropped, "abort");
  await send(second, `/queue/${queue}.tx`, "last");
  const { got: committed } = await receive(second, `/queue/${queue}.tx`, "auto", 3, () => {});
  await close(second);
  console.log(JSON.stringify({ received, again, dead, committed }));
})().catch((error) => { console.error(error); process.exit(1); });
