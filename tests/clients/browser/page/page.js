// What pages do: each function returns what it could read, and nothing of what the browser keeps from it.

// A call of REST: its status, body, and the headers that this page may read.
async function rest(url, options) {
  const response = await fetch(url, options);
  const text = await response.text();
  return {status: response.status, headers: Object.fromEntries(response.headers), body: text ? JSON.parse(text) : null};
}

// A unary call of grpc-web: the message's bytes and the trailers.
async function grpcWeb(url, message, headers) {
  const body = new Uint8Array(5 + message.length);
  new DataView(body.buffer).setUint32(1, message.length);
  body.set(message, 5);
  const response = await fetch(url, {
    method: "POST",
    headers: {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "x-user-agent": "page/1", ...headers},
    body,
  });
  const answer = new Uint8Array(await response.arrayBuffer());
  const read = {message: null, trailers: Object.fromEntries(response.headers)};
  for (let at = 0; at < answer.length; ) {
    const end = at + 5 + new DataView(answer.buffer).getUint32(at + 1);
    const part = answer.slice(at + 5, end);
    if (answer[at] & 0x80) {
      const lines = new TextDecoder().decode(part).split("\r\n").filter((line) => line);
      read.trailers = Object.fromEntries(lines.map((line) => line.split(/:\s*(.*)/s, 2)));
    } else {
      read.message = [...part];
    }
    at = end;
  }
  return read;
}

// The browser's own EventSource. What it sees is kept.
function follow(url) {
  window.seen = [];
  window.source = new EventSource(url);
  const keep = (event) =>
    window.seen.push({name: event.type, id: event.lastEventId ?? null, data: event.data ? JSON.parse(event.data) : null});
  for (const name of ["message", "heartbeat", "error"]) window.source.addEventListener(name, keep);
}
