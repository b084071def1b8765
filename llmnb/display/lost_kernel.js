// What becomes of a live answer whose kernel ends, by a crash or by a restart: nobody sends its static form any more.

const ENDED = ["autorestarting", "restarting", "terminating", "dead"];
const KERNEL_ENDED = "kernel ended";
const LOST = `${KERNEL_ENDED} · run this cell again: what is finished is kept`; // as in run_progress.py

/** Call `act` when the kernel ends; gives what stops listening. */
function whenKernelEnds(kernel, act) {
  const changed = (_, status) => ENDED.includes(status) && act();
  kernel?.statusChanged?.connect(changed);
  return () => kernel?.statusChanged?.disconnect(changed);
}

/** What has come of an answer in the form that stays, without what only a kernel could do. */
function brokenOff(scene, label) {
  const answer = element("div", "llmnb llmnb-answer");
  const style = document.getElementById(STYLE_ID);
  if (style?.localName === "style") answer.append(element("style", "", style.textContent));
  const { body, footer } = partsOf(scene, label);
  answer.append(body, footer);
  return { "text/html": answer.outerHTML, "text/plain": `${textOf(body)}\n\n${footer.textContent.trim()}` };
}

/** The body and the footer that stay of an answer: its own footer where it has come to its end. */
function partsOf(scene, label) {
  const body = element("div", "llmnb-body");
  body.innerHTML = bodyOf(scene);
  for (const useless of body.querySelectorAll("button, .llmnb-ask")) useless.remove();
  const own = element("div", "llmnb-foot");
  own.innerHTML = scene.over ? scene.nodes.get(FOOTER).html : "";
  if (scene.over) return { body, footer: own };
  const footer = element("div", "llmnb-footer");
  const warning = element("span", "llmnb-warning", KERNEL_ENDED);
  warning.title = "the kernel died or was restarted: the answer is not complete";
  footer.append(warning, ` · ${label}`);
  const open = body.querySelectorAll(":is(.llmnb-running, .llmnb-asking) .llmnb-state");
  for (const state of open) state.textContent = "no result";
  return { body, footer };
}

/** The nodes' HTML, made safe in Python, with thinking in its folds. */
function bodyOf(scene) {
  const nodes = [...scene.nodes.values()].filter((node) => node.kind !== "footer");
  const inside = (id) => nodes.filter((node) => node.parent === id).map((node) => node.html).join("");
  return nodes
    .filter((node) => node.parent === 0)
    .map(({ id, kind, html }) => (kind === "thinking" ? foldOf(html, inside(id)) : html))
    .join("");
}

function foldOf(summary, html) {
  return `<details class="llmnb-thinking"><summary>${summary}</summary><div class="llmnb-fold">${html}</div></details>`;
}

/** The text of the answer, without thinking and tools. */
function textOf(body) {
  const blocks = [...body.children].filter((block) => !block.matches("details, .llmnb-retry"));
  return blocks.map((block) => block.textContent.trim()).join("\n\n");
}
