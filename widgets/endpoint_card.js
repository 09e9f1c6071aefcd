const NAMES = { curl: "curl", openai: "Python (openai)", langchain: "LangChain" };

function render({ model, el }) {
  const root = part(el, "wb-endpoint", "Endpoint");
  const start = button("Start serving", "Answer OpenAI clients with the loaded model", () => model.send({ type: "start", host: window.location.hostname }), "wb-primary");
  const stop = button("Stop serving", "Let running requests end, then close", () => model.send({ type: "stop" }));
  const test = button("Test streaming", "Stream a few tokens through every address", () => model.send({ type: "test" }));
  const headline = element("span", { class: "wb-headline", role: "status" });
  const facts = element("dl", { class: "wb-facts" });
  const probe = element("p", { class: "wb-hint", role: "status" });
  const snippets = element("div");
  const failure = element("div");
  root.append(
    element("div", { class: "wb-row" }, start, stop, test, element("span", { class: "wb-pill" }, headline)),
    facts, probe, snippets, failure,
  );

  let waitingForKey = null;
  const copyKey = button("Copy key", "Put the key on the clipboard; it is not shown", () => {
    waitingForKey = copyKey;
    model.send({ type: "key" });
  }, "wb-small");
  function receive(content) {
    if (content.type === "key" && waitingForKey) {
      copyText(content.key ?? "", waitingForKey);
      waitingForKey = null;
    }
  }

  function address(url) {
    return element("span", { class: "wb-copyable" }, element("code", {}, url), " ", copyButton(() => url, `Copy ${url}`));
  }

  function update() {
    const state = model.get("state");
    setUsable(start, state === "stopped" && model.get("ready"));
    start.title = model.get("ready") ? "Answer OpenAI clients with the loaded model" : "Load a model first";
    setUsable(stop, state === "running");
    setUsable(test, state === "running");
    root.dataset.state = state;
    headline.textContent = model.get("headline");
    const rows = [];
    if (state === "running" || state === "stopping") {
      rows.push(["On this machine", address(model.get("local_url"))]);
      const isPublic = model.get("public_path") !== "";
      const outside = isPublic ? address(window.location.origin + model.get("public_path")) : element("span", {}, model.get("via"));
      const note = element("div", { class: "wb-hint" }, ...withCode(model.get("note")));
      rows.push([isPublic ? model.get("via") : "From outside", element("div", {}, outside, note)]);
      const key = element("span", {}, model.get("masked_key"), " ");
      if (model.get("needs_key")) key.append(copyKey);
      rows.push(["Key", key]);
    }
    facts.replaceChildren(...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
    probe.textContent = model.get("probe");
    const outside = Object.entries(model.get("outside_snippets") ?? {}).map(([name, text]) =>
      codeBlock(`${NAMES[name] ?? name}, from outside`, text.replaceAll("{origin}", window.location.origin)));
    snippets.replaceChildren(...Object.entries(model.get("snippets")).map(([name, text]) => codeBlock(NAMES[name] ?? name, text)), ...outside);
    failure.replaceChildren(...failureNotes(model.get("failure")));
  }

  model.on("msg:custom", receive);
  const traits = ["state", "ready", "headline", "local_url", "public_path", "via", "note", "masked_key", "needs_key", "snippets", "outside_snippets", "probe", "failure"];
  const end = follow(model, traits, update);
  return () => {
    model.off("msg:custom", receive);
    end();
  };
}

export default { initialize, render };
