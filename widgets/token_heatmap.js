// The tokens are one stop of the tab key; arrows move among them, and Enter goes into a token's alternatives.
function percent(p) {
  return p === null ? "no probability" : p >= 0.9995 ? "100 %" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
}

function render({ model, el }) {
  const root = part(el, "wb-heat", "Token heat map");
  const coloring = element("select", { onchange: () => model.send({ type: "coloring", by: coloring.value }) },
    element("option", { value: "probability" }, "Probability of the token"),
    element("option", { value: "entropy" }, "Entropy: how open the choice was"));
  const coloringField = field("Colour by", "What the colours mean", coloring, "wb-inline");
  const text = element("textarea", { rows: "2" });
  const textField = field("Text to score", "Any text; the model says how likely each token of it is", text, "wb-wide");
  const score = button("Score", "Have the model score this text", () => model.send({ type: "score", text: text.value }), "wb-small");
  const scoring = element("div", {}, textField.node, element("div", { class: "wb-row" }, score));
  const summary = element("p", { class: "wb-hint", role: "status" });
  const box = element("div", { class: "wb-tokens", role: "listbox", "aria-label": "Tokens; arrow keys move, Enter shows what could have stood there", tabindex: "0" });
  const detail = element("div", { class: "wb-token-detail" });
  const failure = element("div");
  root.append(scoring, element("div", { class: "wb-row" }, coloringField.node, summary), box, detail, failure);
  const id = `wb-token-${Math.random().toString(36).slice(2)}`;
  let current = -1;
  // The token of which an alternative was taken last.
  let picked = 0;

  function heat(token) {
    const byEntropy = model.get("coloring") === "entropy";
    const value = byEntropy ? token.h : token.p;
    if (value === null) return 0;
    return byEntropy ? Math.min(1, value / 4) : 1 - value;
  }

  function select(index) {
    const tokens = model.get("tokens");
    if (!tokens.length) return;
    box.children[current]?.setAttribute("aria-selected", "false");
    current = Math.max(0, Math.min(tokens.length - 1, index));
    const node = box.children[current];
    node.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", node.id);
    node.scrollIntoView({ block: "nearest" });
    showDetail(tokens[current]);
  }

  function pick(alternative) {
    picked = current;
    // Its button is about to go: the keyboard's place is among the tokens again.
    if (detail.contains(document.activeElement)) box.focus();
    model.send({ type: "pick", token: current, alternative });
  }

  function showDetail(token) {
    const focused = [...detail.querySelectorAll("button")].indexOf(document.activeElement);
    const rank = token.rank ? `, choice ${token.rank}` : "";
    const entropy = token.h === null ? "" : `, entropy ${token.h.toFixed(2)} nats or more`;
    detail.replaceChildren(
      element("p", {}, element("strong", {}, `\u201c${shownToken(token.text)}\u201d`), ` ${percent(token.p)}${rank}${entropy}`),
      element("div", { class: "wb-alternatives", role: "group", "aria-label": "What could have stood here" },
        ...token.alts.map(([alternative, p], index) => {
          const node = button("", `Go on from \u201c${shownToken(alternative)}\u201d`, () => pick(index), "wb-alternative");
          node.append(element("span", { class: "wb-alt-bar", style: `width:${100 * p}%` }), element("code", {}, shownToken(alternative)), element("span", {}, percent(p)));
          setUsable(node, model.get("can_pick") && !model.get("busy"));
          return node;
        })),
    );
    if (focused >= 0) detail.querySelectorAll("button")[Math.min(focused, token.alts.length - 1)]?.focus();
  }

  box.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      select(steps[event.key] === -Infinity ? 0 : steps[event.key] === Infinity ? Infinity : current + steps[event.key]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      detail.querySelector("button")?.focus();
    }
  });
  detail.addEventListener("keydown", (event) => {
    const buttons = [...detail.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      buttons[(at + (event.key === "ArrowDown" ? 1 : buttons.length - 1)) % buttons.length]?.focus();
    } else if (event.key === "Escape") box.focus();
  });
  box.addEventListener("focus", () => { if (current < 0) select(0); });

  function updateTokens() {
    const hasFocus = box.contains(document.activeElement) || detail.contains(document.activeElement);
    current = -1;
    box.removeAttribute("aria-activedescendant");
    detail.replaceChildren();
    box.replaceChildren(...model.get("tokens").map((token, index) => element("span", {
      class: "wb-token", role: "option", id: `${id}-${index}`, "aria-selected": "false",
      "aria-label": `${shownToken(token.text)}, ${percent(token.p)}`, title: `${percent(token.p)}${token.alts.length ? "\n" + token.alts.map(([t, p]) => `${shownToken(t)}  ${percent(p)}`).join("\n") : ""}`,
      style: `--heat:${heat(token).toFixed(3)}`,
      onclick: () => { select(index); },
      // Whoever works here by keyboard is not disturbed by where the pointer lies.
      onmouseenter: () => { if (![box, detail].some((node) => node.contains(document.activeElement))) select(index); },
    }, token.text === "" ? shownToken("") : token.text.replace(/\n/g, "\u21b5\n").replace(/\t/g, "\u21e5"))));
    box.hidden = model.get("tokens").length === 0;
    if (hasFocus) {
      box.focus();
      select(picked);
    }
    picked = 0;
  }

  function update() {
    coloring.value = model.get("coloring");
    scoring.hidden = !model.get("can_score");
    if (document.activeElement !== text) text.value = model.get("text");
    const noModel = model.get("ready") ? "" : "Load a model to score a text, or to go on from an alternative.";
    summary.textContent = model.get("busy") ? "Scoring\u2026" : [model.get("summary"), noModel].filter(Boolean).join(". ");
    setUsable(score, model.get("ready") && !model.get("busy"));
    root.setAttribute("aria-busy", model.get("busy"));
    failure.replaceChildren(...failureNotes(model.get("failure")));
    if (current >= 0 && model.get("tokens")[current]) showDetail(model.get("tokens")[current]);
  }
  const endings = [
    follow(model, ["tokens", "coloring"], updateTokens),
    follow(model, ["coloring", "summary", "busy", "can_score", "can_pick", "ready", "text", "failure"], update),
  ];
  return () => endings.forEach((end) => end());
}

export default { initialize, render };
