const WHO = { user: "You", assistant: "Model", system: "System" };
const STATUS = { running: "writing\u2026", stopped: "stopped", failed: "failed", done: "" };

// One message. Its text comes as HTML blocks that the kernel has made safe; a block is replaced only when it changed.
class MessageView {
  constructor(message, act) {
    this.act = act;
    this.body = element("div", { class: "wb-text" });
    this.footer = element("div", { class: "wb-note" });
    this.status = element("span", { class: "wb-hint" });
    this.versions = element("span", { class: "wb-versions" });
    this.tools = element("div", { class: "wb-tools" });
    this.node = element(
      "article",
      { class: "wb-message", "aria-label": WHO[message.role], "data-role": message.role },
      element("header", { class: "wb-who" }, element("span", {}, WHO[message.role]), this.versions, this.status, this.tools),
      this.body,
      this.footer,
    );
    this.blocks = [];
    this.state = "";
    this.edit = null;
  }

  show(message, isBusy) {
    this.message = message;
    const hasEnded = this.state === "running" && message.status !== "running";
    // A running reply's blocks come in pieces; what the shared state says of it may be older than what is shown.
    if (message.status !== "running" || this.state !== "running") this.setBlocks(0, message.blocks);
    this.state = message.status;
    this.node.dataset.status = message.status;
    this.status.textContent = STATUS[message.status];
    if (message.status !== "running" || !this.footer.textContent) this.footer.replaceChildren(message.note, ...failureNotes(message.failure));
    this.showTools(isBusy);
    return hasEnded;
  }

  showTools(isBusy) {
    const { number, role, version, versions, has_tokens: hasTokens } = this.message;
    // The keyboard's place stays on the tool that was used, also when the tools are made anew.
    const focused = this.node.contains(document.activeElement) ? document.activeElement.dataset.tool : null;
    const tool = (name, label, title, press, usable = true) => {
      const node = button(label, title, press, "wb-tool");
      node.dataset.tool = name;
      node.setAttribute("aria-label", title);
      setUsable(node, usable && !isBusy);
      return node;
    };
    this.versions.replaceChildren(...(versions > 1 ? [
      tool("before", "\u2039", "Version before", () => this.act("show", { number, step: -1 }), version > 1),
      element("span", { class: "wb-hint" }, `${version} of ${versions}`),
      tool("after", "\u203a", "Version after", () => this.act("show", { number, step: 1 }), version < versions),
    ] : []));
    const copy = copyButton(() => this.message.text, "Copy this message");
    copy.classList.replace("wb-small", "wb-tool");
    this.tools.replaceChildren(
      ...(role === "assistant" ? [tool("again", "Retry", "Another version of this reply", () => this.act("regenerate", { number }))] : []),
      tool("edit", "Edit", "Change this message; the old one stays as a version", () => this.startEdit()),
      tool("branch", "Branch", "Go on from here in a new conversation", () => this.act("branch", { number })),
      ...(hasTokens ? [tool("tokens", "Tokens", "How sure the model was of each token", () => this.act("inspect", { number }))] : []),
      copy,
    );
    if (focused) this.node.querySelector(`[data-tool="${focused}"]`)?.focus();
  }

  startEdit() {
    if (this.edit) return;
    const area = element("textarea", { rows: "4", "aria-label": "New text of the message" });
    area.value = this.message.text;
    const refusal = element("p", { class: "wb-problem", role: "alert" });
    const end = () => {
      const hadFocus = box.contains(document.activeElement);
      this.edit = null;
      box.remove();
      this.body.hidden = false;
      if (hadFocus) this.node.querySelector('[data-tool="edit"]')?.focus();
    };
    const wait = (isWaiting) => { setUsable(save, !isWaiting); area.readOnly = isWaiting; };
    const keep = () => {
      if (area.readOnly) return;
      // The text stays in its box until the kernel has taken it.
      wait(true);
      refusal.textContent = "";
      this.act("edit", { number: this.message.number, text: area.value });
    };
    const save = button(this.message.role === "user" ? "Send as new version" : "Keep as new version", "Keep the change (Ctrl+Enter)", keep, "wb-small wb-primary");
    const box = element("div", { class: "wb-edit" }, area, refusal, element("div", { class: "wb-row" }, save, button("Cancel", "Leave it as it was (Esc)", end, "wb-small")));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) keep();
      else if (event.key === "Escape") { event.stopPropagation(); end(); }
    });
    this.body.hidden = true;
    this.body.after(box);
    this.edit = { end, refuse: (reason) => { refusal.textContent = reason; wait(false); } };
    area.focus();
  }

  setBlocks(from, blocks) {
    this.blocks = [...this.blocks.slice(0, from), ...blocks];
    while (this.body.children.length > from) this.body.lastChild.remove();
    for (const block of blocks) {
      const node = element("div", { class: "wb-block" });
      node.innerHTML = block;
      for (const pre of node.querySelectorAll("pre")) {
        pre.tabIndex = 0;
        const copy = copyButton(() => pre.textContent, "Copy this code");
        copy.classList.add("wb-copy-code");
        pre.before(copy);
      }
      this.body.append(node);
    }
  }
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

function settingsView(model, act) {
  const system = element("textarea", { rows: "2", onchange: () => act("system", { text: system.value }) });
  const presets = element("select", { onchange: () => presets.value && act("preset", { name: presets.value }) });
  const presetName = element("input", { type: "text" });
  const inside = element("input", { type: "checkbox", onchange: () => act("inside", { on: inside.checked }) });
  const systemField = field("System prompt", "What the model is told before the conversation", system, "wb-wide");
  const presetField = field("Preset", "A saved way to sample", presets);
  const nameField = field("Name for a new preset", "Keep these settings under a name", presetName);
  const grid = element("div", { class: "wb-grid" });
  const insideField = element("label", { class: "wb-check" }, inside, " Look inside: keep each token's alternatives with new replies");
  const node = element("details", { class: "wb-fold" }, element("summary", {}, "System prompt, presets and sampling"),
    systemField.node,
    element("div", { class: "wb-row wb-end" }, presetField.node, nameField.node,
      button("Save preset", "Keep these settings", () => act("save_preset", { name: presetName.value }), "wb-small"),
      button("Delete preset", "Forget the chosen preset", () => act("remove_preset", { name: presets.value }), "wb-small")),
    grid, insideField);
  const inputs = new Map();

  function update() {
    showValue(system, model.get("system"));
    const changed = model.get("changed_preset");
    presets.replaceChildren(element("option", { value: "" }, changed ? `${changed}, changed` : "Own settings"), ...model.get("presets").map((name) => element("option", { value: name }, name)));
    presets.value = model.get("preset");
    inside.checked = model.get("looks_inside");
    for (const setting of model.get("settings")) {
      if (!inputs.has(setting.name)) {
        const input = element("input", {
          type: "number", step: setting.step, min: setting.least, max: setting.most,
          onchange: () => act("sampling", { name: setting.name, value: typedNumber(input) }),
        });
        inputs.set(setting.name, input);
        grid.append(field(setting.label, setting.label, input).node);
      }
      showValue(inputs.get(setting.name), setting.value ?? "");
    }
  }
  return { node, update };
}

function meterView() {
  const bar = element("div", { class: "wb-bar", role: "img" });
  const line = element("span", { class: "wb-hint" });
  const node = element("div", { class: "wb-meter" }, bar, line);
  return {
    node,
    update(context) {
      node.hidden = !context.line;
      if (!context.line) return;
      line.textContent = `Context: ${context.line}`;
      bar.hidden = !context.max;
      bar.setAttribute("aria-label", context.line);
      node.dataset.full = context.fits === false;
      const share = (tokens) => `width:${Math.min(100, (100 * tokens) / context.max)}%`;
      bar.replaceChildren(...(context.max ? ["system", "history", "draft"].map((kind, index) =>
        element("span", { style: `${share(context[kind])};background:var(--wb-c${index + 1})`, title: `${kind} ${context[kind]}` })) : []));
    },
  };
}

function render({ model, el }) {
  const root = part(el, "wb-chat", "Chat");
  const act = (type, content = {}) => { refusal.textContent = ""; model.send({ type, ...content }); };
  const views = new Map();
  const log = element("div", { class: "wb-log", role: "log", "aria-live": "off", "aria-label": "Conversation", tabindex: "0" });
  const spoken = element("div", { class: "wb-unseen", role: "status", "aria-live": "polite" });
  const input = element("textarea", { rows: "2" });
  const message = field("Message", "What to say to the model", input, "wb-wide");
  message.hint.textContent = "Enter sends, Shift+Enter makes a new line, Esc stops the reply, Ctrl+Enter asks for another version of it.";
  const hint = element("p", { class: "wb-hint", role: "status" });
  const refusal = element("p", { class: "wb-problem", role: "alert" });
  const send = button("Send", "Send the message (Enter)", ask, "wb-primary");
  const stop = button("Stop", "Stop the reply and keep what has come (Esc)", () => act("stop"));
  const again = button("Continue", "Have the model go on with its last reply", () => act("continue"));
  const fresh = button("New chat", "Begin a conversation; this one stays in the list", () => act("new"));
  const others = element("select", { onchange: () => act("open", { id: others.value }) });
  const othersField = field("Conversation", "Which conversation is shown", others, "wb-wide");
  const forget = button("Delete", "Forget the conversation that is shown", () => act("clear"), "wb-small");
  const exportAll = button("Export all", "Save all conversations of the list as JSON", () => act("export_all"), "wb-small");
  const shelf = element("div", { class: "wb-row wb-end" }, othersField.node, exportAll, forget);
  const file = element("input", { type: "file", accept: ".json,application/json", class: "wb-unseen", tabindex: "-1", "aria-label": "Conversation file",
    onchange: async () => { if (file.files[0]) act("import", { text: await file.files[0].text() }); file.value = ""; } });
  const exportButton = button("Export", "Save the conversation with all its versions as JSON", () => act("export"), "wb-small");
  const importButton = button("Import", "Open a conversation from JSON", () => file.click(), "wb-small");
  const settings = settingsView(model, act);
  const meter = meterView();
  let shown = null;
  let pending = null;
  let draftTimer = null;

  function ask() {
    const text = input.value;
    if (!text.trim()) return;
    // The text stays in its box until the kernel has taken it: a busy kernel loses nothing.
    pending = text;
    update();
    act("ask", { text });
  }

  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    // What is being written stays where it is.
    if (event.ctrlKey || event.metaKey) act("regenerate");
    else if (send.getAttribute("aria-disabled") !== "true") ask();
  });
  input.addEventListener("input", () => {
    clearTimeout(draftTimer);
    draftTimer = setTimeout(() => model.send({ type: "draft", text: input.value }), 400);
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && model.get("busy")) act("stop");
  });

  function keepingEnd(change) {
    const wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    change();
    if (wasAtEnd) log.scrollTop = log.scrollHeight;
  }

  function updateMessages() {
    const messages = model.get("messages");
    // In another conversation the numbers are those of other messages.
    const isOther = model.get("conversation_id") !== shown;
    shown = model.get("conversation_id");
    const numbers = new Set(isOther ? [] : messages.map((message) => message.number));
    let lost = null;
    keepingEnd(() => {
      for (const [number, view] of views) {
        if (numbers.has(number)) continue;
        const focused = document.activeElement;
        if (view.node.contains(focused)) lost = { index: [...log.children].indexOf(view.node), tool: focused.dataset.tool };
        view.node.remove();
        views.delete(number);
      }
      messages.forEach((message, index) => {
        if (!views.has(message.number)) views.set(message.number, new MessageView(message, act));
        const view = views.get(message.number);
        if (log.children[index] !== view.node) log.insertBefore(view.node, log.children[index] ?? null);
        if (view.show(message, model.get("busy"))) spoken.textContent = `Reply ${STATUS[message.status]}: ${view.body.textContent}`;
      });
    });
    log.dataset.empty = messages.length === 0;
    // The keyboard's place stays on the tool that was used, now of another version; else it is where one writes.
    if (lost) ((lost.tool && log.children[lost.index]?.querySelector(`[data-tool="${lost.tool}"]`)) || input).focus();
  }

  function update() {
    const busy = model.get("busy");
    setUsable(send, model.get("ready") && !busy && pending === null);
    setUsable(stop, busy);
    setUsable(again, model.get("ready") && model.get("can_continue"));
    setUsable(fresh, !busy && model.get("messages").length > 0);
    setUsable(exportButton, model.get("messages").length > 0);
    setUsable(importButton, !busy);
    const conversations = model.get("conversations");
    shelf.hidden = conversations.length < 2;
    others.replaceChildren(...conversations.map(({ id, title }) => element("option", { value: id }, title)));
    others.value = model.get("conversation_id");
    others.disabled = busy;
    setUsable(forget, !busy);
    root.setAttribute("aria-busy", busy);
    hint.textContent = pending === null ? model.get("hint") : "Waiting for the kernel to take the message\u2026";
    hint.hidden = hint.textContent === "";
    meter.update(model.get("context"));
  }

  function receive(content) {
    if (content.type === "accepted" || content.type === "refused") {
      const edit = content.to === "edit" ? views.get(content.number)?.edit : null;
      if (content.type === "accepted") edit?.end();
      else {
        const reason = `${sentence(content.cause)} ${content.next_step}`;
        if (edit) edit.refuse(reason);
        else refusal.textContent = reason;
        // The fields show what is in use, not what was refused.
        settings.update();
      }
      if (content.to !== "ask") return;
      if (content.type === "accepted" && input.value === pending) input.value = "";
      pending = null;
      update();
    } else if (content.type === "export") {
      const link = element("a", { href: URL.createObjectURL(new Blob([content.text], { type: "application/json" })), download: content.name ?? "conversation.json" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    } else if (content.type === "blocks") {
      const view = views.get(content.number);
      // A piece that does not fit what is shown means that one was missed: ask for the whole text.
      if (!view || content.from > view.blocks.length) return void model.send({ type: "hello" });
      keepingEnd(() => {
        view.setBlocks(content.from, content.blocks);
        if (content.live && view.state === "running") view.footer.textContent = content.live;
      });
    }
  }

  root.append(
    shelf, log, spoken, meter.node, message.node,
    element("div", { class: "wb-row" }, send, stop, again, fresh, element("span", { class: "wb-push" }), exportButton, importButton, file, hint),
    refusal, settings.node,
  );
  model.on("msg:custom", receive);
  const endings = [
    follow(model, ["messages", "busy", "conversation_id"], updateMessages),
    follow(model, ["messages", "busy", "ready", "hint", "context", "can_continue", "conversations", "conversation_id"], update),
    follow(model, ["system", "settings", "preset", "changed_preset", "presets", "looks_inside"], settings.update),
  ];
  model.send({ type: "hello" });
  return () => {
    clearTimeout(draftTimer);
    model.off("msg:custom", receive);
    endings.forEach((end) => end());
  };
}

export default { initialize, render };
