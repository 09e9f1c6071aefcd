// The keyboard of the chat: Esc stops, Ctrl+Enter (or Cmd+Enter) regenerates. Enter and Shift+Enter are the box's own.
document.addEventListener("keydown", (event) => {
  const press = (id) => {
    const button = document.getElementById(id);
    // A button of a tab that is not shown is left alone.
    if (!button || button.disabled || button.offsetParent === null) return;
    event.preventDefault();
    event.stopPropagation();
    button.click();
  };
  if (event.key === "Escape") press("wb-stop");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("wb-regenerate");
}, true);
