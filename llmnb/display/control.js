// How a front end reaches a kernel while its cell blocks (see control.py).

const CONTROL = "llmnb.control";
const ACK_MS = { subshells: 1500, none: 200 }; // a late interrupt would strike the next cell: give subshells time

/** Ask the kernel through a comm of our own, which its subshell serves while the cell blocks. */
async function askKernel(kernel, request, acknowledged) {
  const comm = kernel.createComm(CONTROL);
  comm.onMsg = (message) => acknowledged(message.content.data);
  if (kernel.supportsSubshells) await comm.subshellStarted;
  comm.open(request);
}

/** Stop by three legs: the widget's comm (cells that await), our own comm (subshells), the kernel's interrupt. */
function askToStop(model, id, isOver) {
  const kernel = model.widget_manager?.kernel;
  let acknowledged = false;
  model.send({ stop: id });
  if (!kernel?.createComm) return;
  askKernel(kernel, { stop: id }, (data) => (acknowledged ||= Boolean(data?.ack))).catch(() => {});
  const wait = kernel.supportsSubshells ? ACK_MS.subshells : ACK_MS.none;
  setTimeout(() => acknowledged || isOver() || kernel.interrupt(), wait);
}
