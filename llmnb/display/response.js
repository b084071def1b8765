// The front end of a live answer: keeps the nodes that numbered messages describe (see scene.py) and draws them.
// All HTML comes from Python, made safe there; nothing typed by a model is turned into HTML here.
// outputs.js, control.js, handover.js, lost_kernel.js and math.js are put before this script.

const PIECE = ' class="llmnb-piece">'; // see markdown.py
const FOOTER = 1; // id of the node with the footer
const GROUP = 8; // blocks that are laid out, or not, together
const KEEPS = 8; // how many changes a drawing may lag behind and still know what stayed the same
const ASK_MS = 400; // a page that was loaded again has missed the beginning: it asks when nothing comes
const KEEP_MS = 1000; // when the bundle has not taken the view's place by then, its message went to an earlier page

/** What the messages so far say, shared by all views of one model. */
class Scene {
  nodes = new Map(); // id → { id, parent, kind, html, fixed, version }
  next = 0; // number of the message expected
  lost = false; // a message is missing: wait for a keyframe
  begun = false; // whether any message has come
  version = 0;

  /** Whether the answer has ended. */
  get over() {
    return Boolean(this.nodes.get(FOOTER)?.html);
  }

  /** Whether all of the answer is here, and nothing of it will change. */
  get whole() {
    return !this.lost && [...this.nodes.values()].every((node) => node.fixed || node.id === FOOTER);
  }

  /** Take a message in; whether it could be used. */
  receive(message) {
    this.begun = true;
    if (message.key) this.restart(message);
    else if (this.lost || message.n !== this.next) this.lost = true;
    else this.apply(message);
    return !this.lost;
  }

  restart({ n, key }) {
    const old = this.nodes;
    this.nodes = new Map();
    this.version += 1;
    for (const [id, parent, kind, html, fixed] of key) {
      const known = old.get(id);
      const same = known && known.html === html && known.fixed === fixed;
      this.nodes.set(id, same ? known : { id, parent, kind, html, fixed, version: this.version });
    }
    this.next = n + 1;
    this.lost = false;
  }

  apply({ n, ops }) {
    this.version += 1;
    for (const [op, id, ...rest] of ops) {
      if (op === "new") this.nodes.set(id, { id, parent: rest[0], kind: rest[1], html: "", fixed: false });
      const node = this.nodes.get(id);
      if (op === "set") this.set(node, ...rest);
      if (op === "fix") node.fixed = true;
      node.version = this.version;
    }
    this.next = n + 1;
  }

  set(node, keep, html, end) {
    node.html = node.html.slice(0, keep) + html + (end ? node.html.slice(-end) : "");
    node.keeps = (node.keeps ?? []).concat([[this.version, keep]]).slice(-KEEPS);
  }
}

/** One place on the page where a scene is drawn. */
class Drawing {
  elements = new Map(); // id → { box, content, version }
  groups = []; // of boxes in the body: { box, open: boxes that may still change }
  settled = 0; // how many groups are left out of layout while they are out of sight
  frame = 0;

  constructor(scene, body, foot, typeset) {
    Object.assign(this, { scene, body, foot, math: new MathQueue(typeset) });
  }

  request() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.math.changed) this.settle(); // first: measuring is free as long as nothing has changed
    this.math.changed = false;
    for (const node of this.scene.nodes.values()) {
      const drawn = this.elements.get(node.id) ?? this.create(node);
      if (drawn.version === node.version) continue;
      morph(drawn.content, node.html, kept(node, drawn.version));
      drawn.version = node.version;
      if (node.fixed) drawn.group?.open.delete(drawn);
      this.math.look(drawn.content, node.fixed);
    }
  }

  /** In a long answer a group that is finished is laid out only when it is seen; else its height is known. */
  settle(except = 2) {
    for (; this.settled < this.groups.length - except; this.settled += 1) {
      const [group, next] = this.groups.slice(this.settled);
      if (group.open.size || !isTypeset(group.box) || !skipOutOfSight(group.box, next.box)) return;
    }
  }

  create(node) {
    const drawn = node.kind === "thinking" ? thinkingFold() : plainBlock();
    const fold = this.elements.get(node.parent)?.fold;
    if (node.kind === "footer") this.foot.append(drawn.box);
    else if (fold) fold.append(drawn.box);
    else this.append(drawn);
    this.elements.set(node.id, drawn);
    return drawn;
  }

  append(drawn) {
    if (!this.groups.length || this.groups.at(-1).box.childElementCount === GROUP) {
      this.groups.push({ box: element("div", "llmnb-group"), open: new Set() });
      this.body.append(this.groups.at(-1).box);
    }
    drawn.group = this.groups.at(-1);
    drawn.group.open.add(drawn);
    drawn.group.box.append(drawn.box);
  }
}

/** Leave what is in `group` out of layout while it is out of sight, its place and the gap to `next` as they are. */
function skipOutOfSight(group, next) {
  const last = contents(group).at(-1);
  const first = contents(next)[0];
  if (!last || !first) return false;
  const { top } = group.getBoundingClientRect();
  const { bottom } = last.getBoundingClientRect();
  const gap = first.getBoundingClientRect().top - bottom;
  last.style.marginBottom = first.style.marginTop = "0"; // margins no longer collapse
  group.style.marginBottom = `${gap}px`;
  group.style.containIntrinsicBlockSize = `auto ${bottom - top}px`;
  group.style.contentVisibility = "auto";
  return true;
}

/** The elements in boxes, without their boxes. */
function contents(box) {
  if (!box.matches(".llmnb-body, .llmnb-group, .llmnb-block")) return [box];
  return [...box.children].flatMap((child) => (box.matches(".llmnb-block") ? [child] : contents(child)));
}

function plainBlock() {
  const box = element("div", "llmnb-block");
  return { box, content: box, version: -1 };
}

function thinkingFold() {
  const box = element("details", "llmnb-thinking");
  const content = element("summary");
  const fold = element("div", "llmnb-fold");
  box.append(content, fold);
  return { box, content, fold, version: -1 };
}

/** How much of a node's HTML is as it was in a version drawn before; 0 when that is not known. */
function kept(node, version) {
  const changes = (node.keeps ?? []).filter(([changed]) => changed > version);
  const known = version >= 0 && changes.length < KEEPS && changes.length > 0;
  return known ? Math.min(...changes.map(([, keep]) => keep)) : 0;
}

/** Make the children of `target` those of `html`, touching only what differs: selections and open folds stay. */
function morph(target, html, keep = 0) {
  const template = document.createElement("template");
  const mark = keep ? html.lastIndexOf(PIECE, keep) : -1;
  const first = mark > 0 ? target.getElementsByClassName("llmnb-piece")[html.slice(0, mark).split(PIECE).length - 1] : null;
  if (!first) {
    template.innerHTML = html;
    return reconcile(target, template.content);
  }
  const end = html.lastIndexOf(`</${first.parentNode.localName}>`);
  template.innerHTML = html.slice(html.lastIndexOf("<", mark), end);
  return reconcile(first.parentNode, template.content, first);
}

function reconcile(target, wanted, start = target.firstChild) {
  let old = start;
  for (const fresh of [...wanted.childNodes]) {
    const after = old?.nextSibling ?? null;
    if (!old) target.append(fresh);
    else if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) replaceText(old, fresh.data);
    } else if (!old.isEqualNode(fresh)) {
      if (alike(old, fresh)) reconcile(old, fresh);
      else target.replaceChild(fresh, old);
    }
    old = after;
  }
  while (old) {
    const after = old.nextSibling;
    old.remove();
    old = after;
  }
}

function replaceText(node, text) {
  if (text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
  else node.data = text;
}

function alike(old, fresh) {
  return old.nodeType === Node.ELEMENT_NODE && old.tagName === fresh.tagName && old.className === fresh.className;
}

function stop(model, state) {
  if (state.stopping) return;
  state.stopping = true;
  state.changed();
  askToStop(model, model.get("answer_id"), () => state.closed || state.acknowledged);
}

/** A person's word on a tool call, by the widget's comm and by our own, which is heard while the cell blocks. */
function decide(model, event) {
  const button = event.target.closest?.(".llmnb-yes, .llmnb-no");
  if (!button) return;
  for (const other of button.parentNode.querySelectorAll("button")) other.disabled = true;
  const yes = button.matches(".llmnb-yes");
  const request = { decide: model.get("answer_id"), call: button.dataset.call, yes };
  model.send(request);
  const kernel = model.widget_manager?.kernel;
  if (kernel?.createComm) askKernel(kernel, request, () => {}).catch(() => {});
}

function resync(model, state) {
  if (state.resyncing) return;
  state.resyncing = true;
  const kernel = model.widget_manager?.kernel;
  if (kernel?.createComm) askKernel(kernel, { resync: model.get("answer_id") }, () => {}).catch(() => {});
}

/** Ask for the bundle where none has come: a kernel's update of an output reaches only the page that ran its cell. */
function askForBundle(model) {
  const kernel = model.widget_manager?.kernel;
  if (kernel?.createComm && placesOf(model, model.get("answer_id")).length) askKernel(kernel, { keep: model.get("answer_id") }, () => {}).catch(() => {});
}

function copyCode(event) {
  const button = event.target.closest?.(".llmnb-copy");
  if (!button) return;
  navigator.clipboard?.writeText(button.parentNode.querySelector("code").textContent);
  button.classList.add("llmnb-copied");
  button.setAttribute("aria-label", "Copied");
}

function runningBar(model, state) {
  const bar = element("div", "llmnb-bar");
  const pulse = element("span", "llmnb-pulse");
  const words = element("span", "llmnb-running");
  pulse.setAttribute("aria-hidden", "true");
  bar.append(pulse, words);
  if (model.get("can_stop")) bar.append(stopButton(model, state));
  if (model.get("stop_hint")) bar.append(element("span", "llmnb-hint", model.get("stop_hint")));
  const tell = () => {
    if (state.orphaned) {
      bar.replaceChildren(words);
      words.textContent = `${model.get("model_label")} · the kernel ended`;
      return;
    }
    const seconds = Math.floor((performance.now() - state.started) / 1000);
    const doing = state.stopping ? "stopping…" : state.scene.nodes.size > 1 ? "" : "waiting for the first token";
    words.textContent = [model.get("model_label"), doing, `${seconds} s`].filter(Boolean).join(" · ");
  };
  return { bar, tell };
}

function stopButton(model, state) {
  const button = element("button", "llmnb-stop", "Stop");
  button.type = "button";
  button.setAttribute("aria-label", "Stop this answer");
  button.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes Enter and Space for itself
  button.addEventListener("click", () => {
    button.disabled = true;
    stop(model, state);
  });
  return button;
}

function frame(model) {
  const el = element("div", "llmnb llmnb-live jp-RenderedHTMLCommon");
  el.setAttribute("role", "region");
  el.setAttribute("aria-label", `Answer of ${model.get("model_label")}`);
  el.setAttribute("aria-busy", "true");
  const body = element("div", "llmnb-body");
  const foot = element("div", "llmnb-foot");
  const spoken = element("span", "llmnb-spoken");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  return { el, body, foot, spoken };
}

function spokenOf({ orphaned, scene }) {
  if (orphaned) return "The kernel ended: the answer is not complete.";
  return scene.over ? "The answer is complete." : "An answer is being written.";
}

export default () => {
  const state = { scene: new Scene(), views: new Set(), started: performance.now() };
  state.changed = () => state.views.forEach((view) => view());

  return {
    scene: state.scene,
    initialize({ model }) {
      const received = (message) => {
        if (message.ack !== undefined) {
          state.acknowledged ||= Boolean(message.ack);
          return;
        }
        if (message.bundle) return keep(model, model.get("answer_id"), message.bundle);
        if (message.elapsed_s !== undefined) state.started = performance.now() - message.elapsed_s * 1000;
        if (state.scene.receive(message)) state.resyncing = false;
        else resync(model, state);
        if (state.scene.over) state.asking ||= setTimeout(() => state.closed || askForBundle(model), KEEP_MS);
        state.changed();
      };
      model.on("msg:custom", received);
      setTimeout(() => state.scene.begun || state.closed || resync(model, state), ASK_MS);
      const unhear = whenKernelEnds(model.widget_manager?.kernel, () => {
        if (state.scene.over || state.orphaned) return;
        state.orphaned = true;
        state.changed();
        keep(model, model.get("answer_id"), brokenOff(state.scene, model.get("model_label")));
      });
      return () => {
        unhear();
        state.closed = true;
        model.off("msg:custom", received);
      };
    },

    render({ model, el }) {
      const parts = frame(model);
      const { bar, tell } = runningBar(model, state);
      const typesetter = model.widget_manager?.rendermime?.latexTypesetter;
      const drawing = new Drawing(state.scene, parts.body, parts.foot, (node) => typesetter?.typeset(node));
      parts.el.append(parts.body, bar, parts.foot, parts.spoken);
      parts.el.addEventListener("click", copyCode);
      parts.el.addEventListener("click", (event) => decide(model, event));
      el.append(parts.el);
      const view = () => {
        const { over } = state.scene;
        bar.hidden = over;
        parts.el.setAttribute("aria-busy", String(!over && !state.orphaned));
        parts.spoken.textContent = spokenOf(state);
        tell();
        handovers().delete(handover);
        handover?.restore();
        handover = over && state.scene.whole ? new Handover(el, drawing) : null;
        if (handover) handovers().add(handover);
        drawing.request();
      };
      let handover = null;
      state.views.add(view);
      view();
      const clock = setInterval(tell, 1000);
      return () => {
        clearInterval(clock);
        cancelAnimationFrame(drawing.frame);
        state.views.delete(view);
        setTimeout(() => handovers().delete(handover), HANDOVER_MS);
      };
    },
  };
};
