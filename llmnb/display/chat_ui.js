// The box of a chat: draws the state that Python tells (chat_ui.py), and says what a person does.
// All HTML comes from Python, made safe there. `makeAnswer` is the front end of a live answer, put before this script.

const KERNEL_BUSY_MS = 700; // after that a question that Python has not taken says what it waits for

/** The front end of one live answer inside the box: it is handed a model as anywidget would hand it one. */
class LiveAnswer {
  handlers = [];

  constructor(model, traits, el) {
    const manager = model.widget_manager;
    const answerModel = {
      get: (name) => traits[name],
      on: (event, handler) => this.handlers.push(handler),
      off: () => {},
      send: (content) => model.send(content),
      widget_manager: manager && { rendermime: manager.rendermime, kernel: quietKernel(manager.kernel) },
    };
    this.id = traits.answer_id;
    const answer = makeAnswer();
    const ends = [answer.initialize({ model: answerModel }), answer.render({ model: answerModel, el })];
    this.end = () => ends.forEach((end) => end?.());
  }

  receive(message) {
    this.handlers.forEach((handler) => handler(message));
  }
}

/** A kernel to ask, but not to interrupt: the answer runs beside the cells, and an interrupt would strike one of them. */
function quietKernel(kernel) {
  if (!kernel?.createComm) return undefined;
  return {
    supportsSubshells: kernel.supportsSubshells,
    createComm: (target) => kernel.createComm(target),
    statusChanged: kernel.statusChanged,
    interrupt: () => {},
  };
}

function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function makeButton(text, label, act, extra = "") {
  const button = make("button", `llmnb-button ${extra}`, text);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

/** One place on the page where the box is drawn. */
class Box {
  turns = new Map(); // number → { key, element }
  live = null;
  editing = null; // number of the turn whose question is in the input
  drafts = 0;

  constructor(model, el) {
    this.model = model;
    this.root = make("div", "llmnb llmnb-live llmnb-transcript llmnb-chat jp-RenderedHTMLCommon");
    this.root.setAttribute("role", "region");
    this.root.setAttribute("aria-label", "Chat");
    this.root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys for itself
    this.buildLog();
    this.buildInput();
    this.buildControls();
    this.root.addEventListener("click", copyCode);
    el.append(this.root);
    this.drafts = model.get("status").draft.number;
    this.draw();
    this.log.scrollTop = this.log.scrollHeight;
  }

  buildLog() {
    this.log = make("div", "llmnb-log");
    this.log.setAttribute("role", "group");
    this.log.setAttribute("aria-label", "Conversation");
    this.log.tabIndex = 0; // so that keys can scroll it
    this.earlier = make("p", "llmnb-earlier");
    this.said = make("div");
    this.now = make("div");
    this.leftOver = make("div", "llmnb-reply llmnb-left-over");
    this.log.append(this.earlier, this.said, this.now, this.leftOver);
    this.notice = make("div", "llmnb-notice");
    this.notice.setAttribute("role", "alert");
    this.root.append(this.log, this.notice);
  }

  buildInput() {
    this.editBar = make("div", "llmnb-editing");
    this.editWords = make("span");
    this.editBar.append(this.editWords, makeButton("Cancel", "Cancel editing", () => this.stopEditing()));
    this.input = make("textarea");
    this.input.rows = 1;
    this.input.placeholder = "Ask… (Enter sends, Shift+Enter begins a new line)";
    this.input.setAttribute("aria-label", "Message");
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("input", () => this.fit());
    this.editBar.hidden = true;
    this.root.append(this.editBar, this.input);
  }

  buildControls() {
    const bar = make("div", "llmnb-controls");
    this.headline = make("span", "llmnb-headline");
    this.again = makeButton("Regenerate", "Regenerate the last answer", () => this.model.send({ regenerate: true }));
    this.done = makeButton("Close", "Close the box and keep the transcript", () => this.model.send({ close: true }));
    this.sender = makeButton("Send", "Send the message", () => this.send(), "llmnb-primary");
    bar.append(this.headline, this.again, this.done, this.sender);
    this.root.append(bar);
  }

  key(event) {
    event.stopPropagation();
    if (event.key === "Escape") this.escape();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.send();
  }

  escape() {
    if (this.editing !== null) this.stopEditing();
    else this.now.querySelector(".llmnb-stop")?.click();
  }

  send() {
    const text = this.input.value;
    if (!text.trim() || this.live || this.waiting) return;
    this.model.send({ ask: text, at: this.editing });
    this.sent = text;
    this.input.value = "";
    this.stopEditing();
    this.waiting = setTimeout(() => this.say("The kernel is busy: the question is asked when its cell has ended."), KERNEL_BUSY_MS);
  }

  edit(turn) {
    this.editing = turn.number;
    this.input.value = turn.draft;
    this.editWords.textContent = `Editing question ${turn.number + 1}: what came after it will be replaced.`;
    this.editBar.hidden = false;
    this.fit();
    this.input.focus();
  }

  stopEditing() {
    if (this.editing !== null) this.input.value = "";
    this.editing = null;
    this.editBar.hidden = true;
    this.fit();
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }

  say(text) {
    this.notice.textContent = text;
    this.notice.hidden = !text;
  }

  // What Python tells

  told() {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.draw();
  }

  draw() {
    const status = this.model.get("status");
    this.following(() => {
      this.earlier.textContent = status.earlier;
      this.drawTurns(this.model.get("turns"));
      this.drawLive(status.running);
      this.leftOver.innerHTML = status.leftover;
    });
    this.say(status.notice);
    this.headline.textContent = status.headline;
    this.sender.disabled = Boolean(status.running);
    this.again.disabled = Boolean(status.running) || !this.turns.size;
    this.takeDraft(status.draft);
  }

  /** Do what changes the log, and keep its end in sight if it was. */
  following(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    change();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  drawTurns(turns) {
    const wanted = new Map(turns.map((turn) => [turn.number, turn]));
    for (const [number, drawn] of this.turns) {
      const turn = wanted.get(number);
      if (turn && drawn.key === turn.question + turn.answer) continue;
      drawn.element.remove();
      this.turns.delete(number);
    }
    for (const turn of turns) {
      if (!this.turns.has(turn.number)) this.turns.set(turn.number, this.drawTurn(turn));
      this.said.append(this.turns.get(turn.number).element);
    }
  }

  drawTurn(turn) {
    const element = make("article");
    const asked = make("div", "llmnb-asked");
    const reply = make("div", "llmnb-reply");
    element.setAttribute("aria-label", `Turn ${turn.number + 1}`);
    asked.innerHTML = turn.question;
    reply.innerHTML = turn.answer;
    asked.append(makeButton("Edit", `Edit question ${turn.number + 1} and ask it again`, () => this.edit(turn), "llmnb-edit"));
    element.append(asked, reply);
    const typesetter = this.model.widget_manager?.rendermime?.latexTypesetter;
    if (reply.querySelector(".llmnb-math")) typesetter?.typeset(reply);
    return { key: turn.question + turn.answer, element };
  }

  drawLive(running) {
    if (this.live?.id === running?.answer.answer_id) return;
    this.live?.end();
    this.live = null;
    this.now.replaceChildren();
    if (!running) return;
    const question = make("div", "llmnb-asked");
    const place = make("div", "llmnb-reply");
    question.innerHTML = running.question;
    this.now.append(question, place);
    this.live = new LiveAnswer(this.model, running.answer, place);
    this.log.scrollTop = this.log.scrollHeight;
  }

  takeDraft({ number, text }) {
    if (number <= this.drafts) return;
    this.drafts = number;
    if (this.input.value) return;
    this.input.value = text;
    this.fit();
  }

  receive({ answer, message }) {
    if (this.live?.id !== answer) return;
    this.following(() => this.live.receive(message));
    requestAnimationFrame(() => this.stayAtEnd());
  }

  stayAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    if (scrollHeight - scrollTop - clientHeight < 120) this.log.scrollTop = scrollHeight;
  }

  remove() {
    clearTimeout(this.waiting);
    this.live?.end();
  }
}

function copyCode(event) {
  const button = event.target.closest?.(".llmnb-copy");
  if (!button || button.getAttribute("onclick")) return;
  navigator.clipboard?.writeText(button.parentNode.querySelector("code").innerText);
  button.classList.add("llmnb-copied");
  button.setAttribute("aria-label", "Copied");
}

export default {
  render({ model, el }) {
    const box = new Box(model, el);
    const told = () => box.told();
    const received = (message) => box.receive(message);
    model.on("change:turns", told);
    model.on("change:status", told);
    model.on("msg:custom", received);
    return () => {
      model.off("change:turns", told);
      model.off("change:status", told);
      model.off("msg:custom", received);
      box.remove();
    };
  },
};
