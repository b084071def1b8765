// What is drawn of a live answer goes on in the static bundle that takes its place: nothing is laid out or typeset again.
// A bundle ends with an element that says when it has come (see static.py); it does not without this script.

const KEPT = "llmnb-kept";
const STYLE_ID = "llmnb.display.widget.ResponseView"; // of the style sheet that anywidget has put into the page for good
const HANDOVER_MS = 5000; // how long what a view has drawn waits for its bundle, which comes right after the last frame
const AWAY_MS = 1000; // how long it may be off the page

/** Moves what a view has drawn into the static bundle that takes its place: math and open folds stay as they are. */
class Handover {
  constructor(el, drawing) {
    const output = el.closest(".llmnb-chat, .llmnb-compare") ? null : el.closest(".jp-OutputArea-child"); // a box stays; of columns nobody knows whose bundle it is
    this.drawing = drawing;
    this.area = output?.parentNode;
    this.place = [...(this.area?.children ?? [])].indexOf(output);
    this.away = new Map(); // group → its boxes, which are off the page
    if (this.area) this.lighten();
  }

  /** Take what is out of sight off the page: thousands of elements would take the bundle's coming too long. */
  lighten() {
    this.drawing.draw(); // now: what is measured is final
    this.drawing.settle(1);
    const groups = this.drawing.groups.slice(0, this.drawing.settled).map((group) => group.box);
    const heights = groups.filter(isOutOfSight).map((group) => [group, group.getBoundingClientRect().height]);
    for (const [group, height] of heights) {
      this.away.set(group, [...group.children]);
      group.style.height = `${height}px`;
      group.replaceChildren();
    }
    setTimeout(() => this.restore(), AWAY_MS);
  }

  restore() {
    for (const group of [...this.away.keys()]) this.bring(group);
  }

  /** One group at a time, between frames. */
  restoreSlowly() {
    const [group] = this.away.keys();
    if (!group) return;
    this.bring(group);
    whenIdle(() => this.restoreSlowly());
  }

  bring(group) {
    group.append(...this.away.get(group));
    group.style.height = "";
    this.away.delete(group);
  }

  /** Whether `root`, which has just come, stands in the place of the view, and was given what the view had drawn. */
  into(root) {
    const output = root.closest(".jp-OutputArea-child");
    if (!output || this.area?.children[this.place] !== output) return false;
    const { body, groups } = this.drawing;
    this.drawing.math.stop(); // JupyterLab typesets what is not yet
    this.drawing.draw();
    const old = root.querySelector(".llmnb-body");
    const drawn = groups.flatMap(({ box }) => (this.away.get(box) ?? [...box.children]).flatMap(contents));
    const wanted = [...old.children];
    if (wanted.length !== drawn.length || wanted.some((child, n) => child.tagName !== drawn[n].tagName)) return false;
    drawn.filter((child) => child.isConnected && isTypeset(child)).forEach((child) => child.setAttribute("data-mjx", "done")); // MathJax passes it by
    old.replaceWith(body);
    root.addEventListener("click", copyCode);
    whenIdle(() => this.restoreSlowly());
    return true;
  }
}

function isOutOfSight(node) {
  const { top, bottom } = node.getBoundingClientRect();
  return bottom < 0 || top > innerHeight;
}

function isTypeset(node) {
  return !node.querySelector(".llmnb-math:not(:has(mjx-container))");
}

/** The handovers of this page that wait for their bundle, whichever copy of this script they come from. */
function handovers() {
  if (!customElements.get(KEPT)) {
    customElements.define(
      KEPT,
      class extends HTMLElement {
        static waiting = new Set();

        // runs when the bundle has come to the page, before anything of it is laid out
        connectedCallback() {
          // each style sheet more has the whole page's style computed again
          if (document.getElementById(STYLE_ID)) this.parentElement.querySelector(":scope > style")?.remove();
          const { waiting } = this.constructor;
          const taken = [...waiting].find((handover) => handover.into(this.parentElement));
          waiting.delete(taken);
        }
      },
    );
  }
  return customElements.get(KEPT).waiting;
}
