// Columns of live answers: each is drawn by the front end of one (`makeAnswer`, put before this script), and one button
// stops them all. All HTML comes from Python, made safe there.

/** One column: it hands the messages of its answer on, and draws it in every place where the comparison is shown. */
class Column {
  handlers = [];
  over = false;

  constructor(model, traits) {
    const manager = model.widget_manager;
    const given = { ...traits, can_stop: false, stop_hint: "" };
    this.label = traits.label;
    this.answer = makeAnswer();
    this.model = {
      get: (name) => given[name],
      on: (event, handler) => this.handlers.push(handler),
      off: () => {},
      send: (content) => model.send(content),
      widget_manager: manager && { rendermime: manager.rendermime, kernel: manager.kernel },
    };
    this.end = this.answer.initialize({ model: this.model });
  }

  receive(message) {
    this.handlers.forEach((handler) => handler(message));
    const footer = message.ops?.some(([op, id]) => op === "set" && id === FOOTER);
    this.over ||= Boolean(footer || message.key?.some(([id, , , html]) => id === FOOTER && html));
  }

  /** What has come, in the form that stays when the kernel ends. */
  left() {
    const { body, footer } = partsOf(this.answer.scene, this.model.get("model_label"));
    const box = element("section", "llmnb-column");
    box.append(element("div", "llmnb-who", this.label), body, footer);
    return { html: box, text: `${this.label}\n\n${textOf(body)}\n\n${footer.textContent.trim()}` };
  }

  render(el) {
    const box = element("section", "llmnb-column");
    box.setAttribute("aria-label", `Answer of ${this.label}`);
    box.append(element("div", "llmnb-who", this.label));
    el.append(box);
    return this.answer.render({ model: this.model, el: box });
  }
}

/** The line above the columns: how many are over, for how long it goes on, and Stop. */
function comparisonBar(model, state) {
  const bar = element("div", "llmnb-bar");
  const pulse = element("span", "llmnb-pulse");
  const words = element("span", "llmnb-running");
  pulse.setAttribute("aria-hidden", "true");
  words.setAttribute("role", "status");
  bar.append(pulse, words);
  if (model.get("can_stop")) {
    const button = stopButton(model, state);
    button.setAttribute("aria-label", "Stop all answers");
    bar.append(button);
  }
  if (model.get("stop_hint")) bar.append(element("span", "llmnb-hint", model.get("stop_hint")));
  const tell = () => {
    const doing = state.orphaned ? LOST : state.stopping ? "stopping…" : model.get("doing");
    words.textContent = [howMany(state), doing].filter(Boolean).join(" · ");
    bar.hidden = model.get("over");
    if (state.orphaned) bar.replaceChildren(words);
  };
  return { bar, tell };
}

function howMany({ columns }) {
  return `${columns.filter((column) => column.over).length} of ${columns.length} answers are there`;
}

/** What has come of a comparison whose kernel has ended, in the form that stays. */
function comparisonLeft(model, state) {
  const root = element("div", "llmnb llmnb-compare");
  const grid = element("div", "llmnb-columns");
  const columns = state.columns.map((column) => column.left());
  const line = `${howMany(state)} · ${LOST}`;
  grid.append(...columns.map(({ html }) => html));
  root.append(element("style", "", model.get("_css") ?? ""), grid, element("div", "llmnb-footer", line));
  return { "text/html": root.outerHTML, "text/plain": [...columns.map(({ text }) => text), line].join("\n\n") };
}

export default () => {
  const state = { columns: [], views: new Set() };
  state.changed = () => state.views.forEach((tell) => tell());

  return {
    initialize({ model }) {
      state.columns = model.get("columns").map((traits) => new Column(model, traits));
      const byId = new Map(state.columns.map((column) => [column.model.get("answer_id"), column]));
      const received = (message) => {
        if (message.ack !== undefined) state.acknowledged ||= Boolean(message.ack);
        else if (message.bundle) keep(model, message.bundle);
        else byId.get(message.column)?.receive(message.message);
        state.changed();
      };
      const told = () => {
        if (model.get("over")) state.asking ||= setTimeout(() => state.closed || askForBundle(model), KEEP_MS);
        state.changed();
      };
      model.on("msg:custom", received);
      model.on("change:doing", told);
      model.on("change:over", told);
      told();
      const unhear = whenKernelEnds(model.widget_manager?.kernel, () => {
        if (model.get("over") || state.orphaned) return;
        state.orphaned = true;
        state.changed();
        keep(model, model.get("answer_id"), comparisonLeft(model, state));
      });
      return () => {
        unhear();
        state.closed = true;
        model.off("msg:custom", received);
        model.off("change:doing", told);
        model.off("change:over", told);
        state.columns.forEach((column) => column.end?.());
      };
    },

    render({ model, el }) {
      const root = element("div", "llmnb llmnb-live llmnb-compare jp-RenderedHTMLCommon");
      const grid = element("div", "llmnb-columns");
      const { bar, tell } = comparisonBar(model, state);
      root.setAttribute("role", "region");
      root.setAttribute("aria-label", "Answers side by side");
      root.append(bar, grid);
      el.append(root);
      const ends = state.columns.map((column) => column.render(grid));
      state.views.add(tell);
      tell();
      return () => {
        state.views.delete(tell);
        ends.forEach((end) => end?.());
      };
    },
  };
};
