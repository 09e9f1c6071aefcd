const WHO = { user: "You", assistant: "Model", system: "System" };
const STATUS = { running: "writing\u2026", stopped: "stopped", failed: "failed", done: "" };

// Prose and fenced code in turn: [{ code: bool, text }]. An open fence runs to the end; line breaks beside a fence are
// the fence's own.
function segments(text) {
  const parts = text.split(/^ {0,3}```[^\n`]*(?:\n|$)/m);
  return parts
    .map((part, index) => {
      if (index % 2 === 1) return { code: true, text: part.replace(/\n$/, "") };
      const prose = index > 0 ? part.replace(/^\n+/, "") : part;
      return { code: false, text: index < parts.length - 1 ? prose.replace(/\n+$/, "") : prose };
    })
    .filter((part) => part.text !== "");
}

// Shows `text` in `body`, touching only what changed, so that a selection survives streaming.
function showText(body, text) {
  const wanted = segments(text);
  wanted.forEach(({ code, text: piece }, index) => {
    let node = body.children[index];
    if (!node || node.matches("pre") !== code) {
      const fresh = code ? element("pre", { tabindex: "0" }) : element("div", { class: "wb-prose" });
      fresh.append("");
      if (node) node.replaceWith(fresh);
      else body.append(fresh);
      node = fresh;
    }
    const shown = node.firstChild;
    if (piece.startsWith(shown.data)) shown.appendData(piece.slice(shown.data.length));
    else shown.data = piece;
  });
  while (body.children.length > wanted.length) body.lastChild.remove();
}

class MessageView {
  constructor(message) {
    this.body = element("div", { class: "wb-text" });
    this.footer = element("div", { class: "wb-note" });
    this.status = element("span", { class: "wb-hint" });
    this.node = element(
      "article",
      { class: "wb-message", "aria-label": WHO[message.role], "data-role": message.role },
      element("header", { class: "wb-who" }, element("span", {}, WHO[message.role]), " ", this.status),
      this.body,
      this.footer,
    );
    this.text = "";
    this.state = "";
  }

  show(message) {
    // A running reply's text comes in pieces; what the shared state says of it may be older than what is shown.
    if (message.status !== "running" || message.text.length > this.text.length) this.setText(message.text);
    const hasEnded = this.state === "running" && message.status !== "running";
    this.state = message.status;
    this.node.dataset.status = message.status;
    this.status.textContent = STATUS[message.status];
    this.footer.replaceChildren(message.note, ...(message.failure ? [failureNote(message.failure)] : []));
    return hasEnded;
  }

  setText(text) {
    this.text = text;
    showText(this.body, text);
  }
}

function render({ model, el }) {
  const root = part(el, "wb-chat", "Chat");
  const views = new Map();
  const log = element("div", { class: "wb-log", role: "log", "aria-live": "off", "aria-label": "Conversation", tabindex: "0" });
  const spoken = element("div", { class: "wb-unseen", role: "status", "aria-live": "polite" });
  const input = element("textarea", { rows: "2" });
  const message = field("Message", "What to say to the model", input, "wb-wide");
  message.hint.textContent = "Enter sends, Shift+Enter makes a new line, Esc stops the reply.";
  const hint = element("p", { class: "wb-hint", role: "status" });
  const refusal = element("p", { class: "wb-problem", role: "alert" });
  const send = button("Send", "Send the message (Enter)", ask, "wb-primary");
  const stop = button("Stop", "Stop the reply and keep what has come (Esc)", () => model.send({ type: "stop" }));
  const clear = button("New chat", "Forget this conversation", () => model.send({ type: "clear" }));
  let pending = null;

  function ask() {
    const text = input.value;
    if (!text.trim()) return;
    // The text stays in its box until the kernel has taken it: a busy kernel loses nothing.
    pending = text;
    refusal.textContent = "";
    update();
    model.send({ type: "ask", text });
  }

  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (send.getAttribute("aria-disabled") !== "true") ask();
    }
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && model.get("busy")) model.send({ type: "stop" });
  });

  function keepingEnd(change) {
    const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    change();
    if (wasAtEnd) log.scrollTop = log.scrollHeight;
  }

  function updateMessages() {
    const messages = model.get("messages");
    const numbers = new Set(messages.map((message) => message.number));
    keepingEnd(() => {
      for (const [number, view] of views) {
        if (numbers.has(number)) continue;
        view.node.remove();
        views.delete(number);
      }
      for (const message of messages) {
        if (!views.has(message.number)) {
          views.set(message.number, new MessageView(message));
          log.append(views.get(message.number).node);
        }
        if (views.get(message.number).show(message)) spoken.textContent = `Reply ${STATUS[message.status]}: ${message.text}`;
      }
    });
    log.dataset.empty = messages.length === 0;
  }

  function update() {
    const busy = model.get("busy");
    setUsable(send, model.get("ready") && !busy && pending === null);
    setUsable(stop, busy);
    setUsable(clear, !busy && model.get("messages").length > 0);
    root.setAttribute("aria-busy", busy);
    hint.textContent = pending === null ? model.get("hint") : "Waiting for the kernel to take the message\u2026";
  }

  function receive(content) {
    if (content.type === "accepted" || content.type === "refused") {
      if (content.type === "accepted" && input.value === pending) input.value = "";
      if (content.type === "refused") refusal.textContent = `${content.cause} ${content.next_step}`;
      pending = null;
      update();
      return;
    }
    const view = views.get(content.number);
    if (content.type === "text" && view) keepingEnd(() => view.setText(content.text));
    if (content.type !== "append") return;
    // A piece that does not fit the end of what is shown means that one was missed: ask for the whole text.
    if (!view || view.text.length !== content.offset) model.send({ type: "hello" });
    else keepingEnd(() => view.setText(view.text + content.text));
  }

  root.append(
    log,
    spoken,
    message.node,
    element("div", { class: "wb-row" }, send, stop, clear, hint),
    refusal,
  );
  model.on("msg:custom", receive);
  const endings = [follow(model, ["messages"], updateMessages), follow(model, ["messages", "busy", "ready", "hint"], update)];
  model.send({ type: "hello" });
  return () => {
    model.off("msg:custom", receive);
    endings.forEach((end) => end());
  };
}

export default { render };
