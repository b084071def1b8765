// Math of a live answer, typeset by the notebook's own typesetter between frames.

const MATH = ".llmnb-math"; // see markdown.py
const PATIENCE_MS = 300; // how long math waits for a moment without other work

const FEW = 4; // so many formulas are typeset at once

/** What is still to be typeset: one block, or one formula of many, at a time, as the whole page is measured for each. */
class MathQueue {
  waiting = [];
  loaded = false;
  moment = 0;
  changed = false; // whether something was typeset since the view was drawn

  constructor(typeset) {
    this.typeset = typeset;
  }

  /** A block was drawn, which may have math; it is typeset when the block is final. */
  look(block, fixed) {
    if (this.loaded && !fixed) return;
    const formulas = block.querySelectorAll(MATH);
    if (!formulas.length) return;
    if (fixed) this.waiting.push(...(formulas.length > FEW ? formulas : [block]));
    this.moment ||= whenIdle(() => this.next());
  }

  /** First of all nothing: the typesetter is loaded then, which alone takes as long as many frames. */
  next() {
    const part = this.loaded ? this.waiting.shift() : document.createElement("div");
    this.loaded = true;
    this.changed = true;
    this.typeset(part);
    this.moment = this.waiting.length ? whenIdle(() => this.next()) : 0;
  }

  /** Leave the rest to another typesetter. */
  stop() {
    this.typeset = () => {};
  }
}

/** A moment between frames; some browsers know of none. */
function whenIdle(act) {
  return window.requestIdleCallback ? requestIdleCallback(act, { timeout: PATIENCE_MS }) : setTimeout(act, 20);
}
