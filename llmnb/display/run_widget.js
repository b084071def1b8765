// The front end of a run over many rows: shows the HTML that Python made, with all text in it escaped there, and Stop.
// control.js is put before this script.

function render({ model, el }) {
  const place = document.createElement("div");
  const button = document.createElement("button");
  const state = { stopping: false, closed: false };
  el.classList.add("llmnb-run");
  button.type = "button";
  button.className = "llmnb-stop";
  button.textContent = "Stop";
  button.setAttribute("aria-label", "Stop this run; what is finished is kept");
  button.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes Enter and Space for itself
  button.addEventListener("click", () => {
    button.disabled = true;
    button.textContent = "Stopping…";
    askToStop(model, model.get("run_key"), () => state.closed);
  });
  const draw = () => {
    const before = [...place.querySelectorAll("[tabindex]")].map((one) => [one.scrollLeft, one === document.activeElement]);
    place.innerHTML = model.get("html");
    // who has scrolled a table, or gone to it by the keyboard, stays there
    [...place.querySelectorAll("[tabindex]")].slice(0, before.length).forEach((one, n) => {
      one.scrollLeft = before[n][0];
      if (before[n][1]) one.focus({ preventScroll: true });
    });
  };
  model.on("change:html", draw);
  draw();
  el.append(place, button);
  return () => {
    state.closed = true;
    model.off("change:html", draw);
  };
}

export default { render };
