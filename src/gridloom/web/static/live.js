// Server-sent events over fetch, because EventSource can send no Authorization header. Resumes by Last-Event-ID, for ever.

export async function listen(path, { token, heard, changed }) {
  let lastId = "";
  let wait = 500;
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (token) headers.Authorization = `Bearer ${token}`;
      if (lastId) headers["Last-Event-ID"] = lastId;
      const answer = await fetch(path, { headers, cache: "no-store", credentials: "same-origin" });
      if (answer.status === 401 || answer.status === 403) {
        changed("refused", (await answer.json()).detail || "");
        return;
      }
      if (!answer.ok || !answer.body) throw new Error(`the hub answered ${answer.status}`);
      changed("live", "");
      wait = 500;
      for await (const message of messages(answer.body)) {
        if (message.id) lastId = message.id;
        if (message.data) heard(message.event, message.data);
      }
      changed("lost", "the hub closed the stream");
    } catch (error) {
      changed("lost", String(error.message || error));
    }
    await new Promise((wake) => setTimeout(wake, wait));
    wait = Math.min(wait * 2, 15000);
  }
}

async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const message = { id: "", event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon < 1) continue;
        message[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      yield message;
    }
  }
}
