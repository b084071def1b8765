// The front end of a run over many rows: shows the HTML that Python made, with all text in it escaped there, and Stop.
// outputs.js, control.js and lost_kernel.js are put before this script.

/** What has come of a run whose kernel has ended, in the form that stays: its last words are Python's, too. */
function runLeft(model) {
  const run = element("div", "llmnb-run");
  run.innerHTML = model.get("html");
  run.firstElementChild.outerHTML = model.get("if_lost");
  const words = [...run.firstElementChild.children].map((line) => line.textContent).filter(Boolean);
  run.prepend(element("style", "", model.get("_css") ?? ""));
  return { "text/html": run.outerHTML, "text/plain": words.join(" · ") };
}

function initialize({ model }) {
  let lost = false;
  return whenKernelEnds(model.widget_manager?.kernel, () => {
    if (lost) return;
    lost = true;
    keep(model, model.get("run_key"), runLeft(model));
  });
}

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
  const unhear = whenKernelEnds(model.widget_manager?.kernel, () => {
    button.remove();
    place.firstElementChild.outerHTML = model.get("if_lost");
  });
  return () => {
    unhear();
    state.closed = true;
    model.off("change:html", draw);
  };
}

export default { initialize, render };
