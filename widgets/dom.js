// What every widget's module starts with: elements from plain values. Text only ever becomes text nodes, never markup.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// The widget's own element: named for screen readers, and deaf to the page's keyboard shortcuts.
function part(el, className, label) {
  const root = element("section", {
    class: `wb-part ${className}`,
    "aria-label": label,
    "data-lm-suppress-shortcuts": "true",
    onkeydown: (event) => event.stopPropagation(),
  });
  el.append(root);
  return root;
}

// A button that stays in the tab order when it can't be used, so that the keyboard's place is not lost.
function button(label, title, press, className = "") {
  const node = element("button", { type: "button", class: `wb-button ${className}`, title, "aria-disabled": "false" }, label);
  node.addEventListener("click", () => {
    if (node.getAttribute("aria-disabled") !== "true") press();
  });
  return node;
}

// Controls of fields in which somebody is typing: text that was changed and not yet entered.
const beingTyped = new WeakSet();

// A labelled control; the hint under it is its description, not part of its name.
function field(label, title, control, className = "") {
  control.addEventListener("input", () => beingTyped.add(control));
  for (const end of ["change", "blur"]) control.addEventListener(end, () => beingTyped.delete(control));
  const id = `wb-${Math.random().toString(36).slice(2)}`;
  const hint = element("span", { class: "wb-hint", id: `${id}-hint` });
  control.id = id;
  control.title = title;
  control.setAttribute("aria-describedby", hint.id);
  const name = element("label", { class: "wb-label", for: id }, label);
  return { hint, node: element("div", { class: `wb-field ${className}` }, name, control, hint) };
}

// Puts a value into a field's control; half-typed text is never taken away.
function showValue(control, value) {
  if (!beingTyped.has(control)) control.value = value;
}

// What is typed where a whole number belongs, which may be in groups as "131,072" is shown: null for nothing, and for what
// is no number its text, which the kernel refuses with a reason. A number field keeps such a text to itself.
function typedNumber(control) {
  if (control.validity.badInput) return "no number";
  const text = control.value.trim();
  if (text === "") return null;
  const digits = /^\d{1,3}([,_ ]\d{3})+$/.test(text) ? text.replace(/\D/g, "") : text;
  return Number.isNaN(Number(digits)) ? text : Number(digits);
}

// A token, or an alternative to one, where it stands alone: what would be blank is made to be seen.
function shownToken(text) {
  if (text === "") return "\u00b7";
  const seen = text.replace(/\n/g, "\u21b5\n").replace(/\t/g, "\u21e5");
  return seen.trim() === "" ? seen.replace(/[^\S\n]/g, "\u2423") : seen;
}

// Text whose `pieces` in backticks are code.
function withCode(text) {
  return text.split("`").map((piece, index) => (index % 2 ? element("code", {}, piece) : piece));
}

function setUsable(node, usable) {
  node.setAttribute("aria-disabled", usable ? "false" : "true");
}

// Calls `update` now and at every change of the named traits; the returned function ends that.
function follow(model, names, update) {
  for (const name of names) model.on(`change:${name}`, update);
  update();
  return () => {
    for (const name of names) model.off(`change:${name}`, update);
  };
}

// What every widget begins with, before it is drawn. anywidget gives a widget up whose module takes more than two seconds
// to come, as on a busy machine: it is drawn all the same, and nothing that the kernel says ever reaches it. Such a one is
// made to listen again, and asks for what it missed. Nobody waits for this: anywidget's own wait ends after it.
function initialize({ model }) {
  listenAgain(model);
}

async function listenAgain(model) {
  // `set` gives the model itself, of which anywidget shows a part only.
  const whole = model.set({});
  if (!whole?.comm) return;
  try {
    // A message that says nothing is refused where all of them are.
    await whole._handle_comm_msg({ content: { data: {} } });
  } catch {
    const ofJupyter = Object.getPrototypeOf(Object.getPrototypeOf(whole));
    whole.comm.on_msg(ofJupyter._handle_comm_msg.bind(whole));
    whole.comm.send({ method: "request_state" }, whole.callbacks());
  }
}

// Tells the kernel whether `node` can be seen, again and again while it can; gives {watch, stop}. `watch` may be called
// with another node.
const SIGHT_AGAIN_MS = 15000;

function reportSight(model) {
  const view = Math.random().toString(36).slice(2);
  let isInSight = false;
  let reported = null;
  const report = () => {
    const visible = isInSight && document.visibilityState === "visible";
    if (visible || visible !== reported) model.send({ type: "visible", view, visible });
    reported = visible;
  };
  const again = setInterval(() => { if (reported) report(); }, SIGHT_AGAIN_MS);
  const sight = new IntersectionObserver((entries) => {
    isInSight = entries[entries.length - 1].isIntersecting;
    report();
  });
  document.addEventListener("visibilitychange", report);
  return {
    watch: (node) => sight.observe(node),
    stop: () => {
      clearInterval(again);
      sight.disconnect();
      document.removeEventListener("visibilitychange", report);
      isInSight = false;
      report();
    },
  };
}

// Cause, next step and folded details of a failure, as `Failure.as_dict` gives it; none where there is no failure.
function failureNotes(failure) {
  return failure?.cause ? [failureNote(failure)] : [];
}

function failureNote(failure) {
  const note = element("div", { class: "wb-failure", role: "alert" });
  note.append(
    element("p", {}, element("strong", {}, "Failed: "), failure.cause),
    element("p", {}, element("strong", {}, "Next step: "), failure.next_step),
  );
  if (failure.details) {
    note.append(element("details", {}, element("summary", {}, "Technical details"), element("pre", {}, failure.details)));
  }
  return note;
}

// Puts text on the clipboard, and says on the button that was pressed whether that worked.
async function copyText(text, pressed) {
  const label = pressed.dataset.label ?? pressed.textContent;
  pressed.dataset.label = label;
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch {
    // Pages that are not served over https have no clipboard: an old way works there.
    const area = element("textarea", { class: "wb-unseen", "aria-hidden": "true" });
    area.value = text;
    pressed.after(area);
    area.select();
    pressed.textContent = document.execCommand("copy") ? "Copied" : "Select and copy by hand";
    area.remove();
    pressed.focus();
  }
  setTimeout(() => { pressed.textContent = label; }, 1500);
}

function copyButton(text, title) {
  const node = button("Copy", title, () => copyText(text(), node), "wb-small");
  node.setAttribute("aria-label", title);
  return node;
}

// A folded piece of code with a button that copies it.
function codeBlock(label, text, isOpen = false) {
  return element(
    "details",
    { class: "wb-code", open: isOpen },
    element("summary", {}, label),
    element("div", { class: "wb-code-body" }, element("pre", { tabindex: "0" }, text), copyButton(() => text, `Copy ${label}`)),
  );
}

function bytesText(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(count >= 1e11 ? 0 : 1)} GB`;
  return count >= 1e6 || count === 0 ? `${Math.round(count / 1e6)} MB` : `${Math.ceil(count / 1e3)} kB`;
}

