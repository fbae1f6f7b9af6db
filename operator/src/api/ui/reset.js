// The dialog that resets the committed offsets of a group: choose where to, see what would change, confirm,
// follow. The first step is a dry run; nothing changes before the user has seen its table.
import { html, Component } from "./html.js";
import { number, time } from "./format.js";
import { change, read } from "./session.js";

/** Time between two questions how far a reset is. */
const POLL_MS = 1000;
/** Questions whether a reset was created whose request had no answer. */
const ATTEMPTS = 30;
/** Rows of a plan that are shown; the resource has all. */
const ROWS = 200;
const KINDS = [
  ["Earliest", "The first record that Kafka still has"],
  ["Latest", "The end: skip what is there now"],
  ["Timestamp", "The first record at or after a time"],
  ["Shift", "A number of offsets back or forth"],
];

/** True if the reset stays as it is. */
const isFinal = (reset) => ["Succeeded", "Failed"].includes(reset?.status?.phase);

const pause = () => new Promise((resolve) => setTimeout(resolve, POLL_MS));

/** True for an error that may pass: no answer, too many requests, a server that restarts. */
const mayPass = (error) => !error.status || error.status === 429 || error.status >= 500;

const words = (error) => (error.status ? error.message : `No answer from the server: ${error.message}`);

export class Reset extends Component {
  constructor(props) {
    super(props);
    this.state = this.empty();
  }

  empty() {
    return {
      kind: "Earliest", at: "", by: "", topic: "", stop: true,
      busy: false, problem: "", note: "", plan: null, reset: null, over: false, waited: 0,
    };
  }

  componentWillUnmount() {
    this.current = null;
  }

  resets() {
    const { group } = this.props;
    return `/api/v1/groups/${[group.namespace, group.name].map(encodeURIComponent).join("/")}/offset-resets`;
  }

  one(name) {
    return `${this.resets()}/${encodeURIComponent(name)}`;
  }

  /** A reset that is not finished is shown again, so that no second one is made. */
  open() {
    const { reset } = this.state;
    if (this.runs()) {
      this.dialog.showModal();
      this.run(() => read(this.one(reset.name)), (it, shown) => shown({ reset: it }));
    } else this.setState(this.empty(), () => this.dialog.showModal());
  }

  runs() {
    const { reset, over } = this.state;
    return reset !== null && !over && !isFinal(reset);
  }

  /** What a request that still runs answers is not shown any more. */
  forget() {
    this.current = null;
    this.setState({ busy: false });
  }

  /** A field of the form has changed, so the plan is not what the form says. */
  edited(field, value) {
    this.forget();
    this.setState({ [field]: value, plan: null, problem: "" });
  }

  /** What the form asks for. */
  wanted() {
    const { kind, at, by, topic, stop } = this.state;
    const to = { type: kind };
    if (kind === "Timestamp") to.timestamp = new Date(at).toISOString();
    if (kind === "Shift") to.by = Number(by);
    return { to, ...(topic ? { topics: [{ topic }] } : {}), stopGroup: stop };
  }

  /** Gets a reset and follows it to its end. @param {() => Promise<any>} first @param {(reset: any, shown: any) => void} show */
  async run(first, show) {
    const mine = (this.current = {});
    const shown = (state) => this.current === mine && this.setState(state);
    shown({ busy: true, problem: "", note: "", over: false, waited: 0 });
    try {
      let reset = await first();
      for (let polls = 0; this.current === mine; polls++) {
        show(reset, shown);
        if (isFinal(reset)) break;
        await pause();
        shown({ waited: polls });
        try {
          reset = await read(this.one(reset.name));
          shown({ problem: "" });
        } catch (error) {
          if (!mayPass(error)) throw error;
          shown({ problem: words(error) });
        }
      }
    } catch (error) {
      shown({ problem: words(error), over: true });
    }
    shown({ busy: false });
  }

  /** Creates a reset with a name, which cannot happen twice: one that exists already is this one. */
  async create(body) {
    try {
      return await change("POST", this.resets(), body);
    } catch (error) {
      if (error.status !== 409 && !mayPass(error)) throw error;
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        try {
          return await read(this.one(body.name));
        } catch (missing) {
          // It was not created.
          if (!mayPass(missing)) throw error;
        }
        await pause();
      }
      throw error;
    }
  }

  async cancel() {
    if (this.cancelling) return;
    this.cancelling = true;
    try {
      const last = await change("DELETE", this.one(this.state.reset.name), {});
      this.forget();
      if (isFinal(last)) this.setState({ reset: last, note: "It had ended before." });
      else this.setState({ over: true, note: "The reset was cancelled. Offsets that it has set stay; the group starts again." });
    } catch (error) {
      this.setState({ note: `It could not be cancelled: ${words(error)}` });
    }
    this.cancelling = false;
  }

  planned(event) {
    event.preventDefault();
    if (this.state.busy || this.state.reset) return;
    const body = { ...this.wanted(), dryRun: true };
    this.run(() => change("POST", this.resets(), body), (plan, shown) => shown({ plan }));
  }

  /** Does what the plan shows, not what the form may say meanwhile. */
  confirmed() {
    const { busy, plan, reset } = this.state;
    if (busy || reset) return;
    const { to, topics, stopGroup } = plan.spec;
    const body = { name: `${plan.name}-reset`, to, ...(topics ? { topics } : {}), stopGroup };
    // From here on the dialog is about this reset.
    this.setState({ reset: { name: body.name } });
    this.run(() => this.create(body), (created, shown) => shown({ reset: created }));
  }

  render({ group, disabled }, state) {
    const { busy, problem, note, plan, reset, waited } = state;
    const edited = (field, value) => this.edited(field, value);
    const done = plan?.status?.phase === "Succeeded";
    const runs = this.runs();
    return html`
      <div class="buttons"><button type="button" aria-disabled=${disabled ? "true" : "false"}
        onClick=${() => !disabled && this.open()}>Reset offsets …</button></div>
      <dialog class="wide" ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="reset-title" onClose=${() => this.forget()}>
        <h2 id="reset-title">Reset the offsets of ${group.name}</h2>
        ${!reset && html`<form class="fields" onSubmit=${(event) => this.planned(event)}>
          <label>Continue at
            <select value=${state.kind} onChange=${(event) => edited("kind", event.target.value)}>
              ${KINDS.map(([kind, text]) => html`<option value=${kind}>${text}</option>`)}
            </select></label>
          ${state.kind === "Timestamp" &&
          html`<label>Time, in your time zone <input type="datetime-local" step="1" required value=${state.at}
            onInput=${(event) => edited("at", event.target.value)} /></label>`}
          ${state.kind === "Shift" &&
          html`<label>Offsets, negative to read again <input type="number" step="1" required value=${state.by}
            onInput=${(event) => edited("by", event.target.value)} /></label>`}
          <label>Topic
            <select value=${state.topic} onChange=${(event) => edited("topic", event.target.value)}>
              <option value="">All topics</option>
              ${group.topics.map(({ name }) => html`<option value=${name}>${name}</option>`)}
            </select></label>
          <label class="check"><input type="checkbox" checked=${state.stop}
            onChange=${(event) => edited("stop", event.target.checked)} /> Stop the workers for it, and start them again</label>
          <button type="submit" aria-disabled=${busy ? "true" : "false"}>Show what would change</button>
        </form>`}
        <p role="status" class=${problem ? "bad" : "note"}>${problem || progress(reset ?? plan, busy, waited)}</p>
        ${plan && !reset && html`<${Plan} reset=${plan} />`}
        ${reset && html`<${Plan} reset=${reset} />`}
        ${note && html`<p role="status">${note}</p>`}
        ${runs && html`<p class="note">The reset goes on when this dialog is closed.</p>`}
        <div class="buttons">
          ${done && !reset &&
          html`<button type="button" class="danger" aria-disabled=${busy ? "true" : "false"} onClick=${() => this.confirmed()}>
            Reset ${number(plan.status.totals?.changed ?? 0)} partitions</button>`}
          ${runs && html`<button type="button" class="danger" onClick=${() => this.cancel()}>Cancel the reset</button>`}
          <button type="button" onClick=${() => this.dialog.close()}>Close</button>
        </div>
      </dialog>`;
  }
}

/** One sentence: how far it is. */
function progress(reset, busy, waited) {
  if (!reset) return busy ? "Asking …" : "";
  const { phase, message } = reset.status ?? {};
  if (!phase && waited > 15)
    return "The operator has not looked at the reset yet. It may miss the CRD of KafkaOffsetReset or the right to watch it; its log says so.";
  return `${phase ?? "Pending"}${message ? `: ${message}` : " …"}`;
}

function Plan({ reset }) {
  const { partitions = [], totals } = reset.status ?? {};
  if (partitions.length === 0) return null;
  return html`
    ${totals && html`<p>Read again: <strong>${number(totals.again)}</strong> offsets. Not read: <strong>${number(totals.skipped)}</strong> offsets.</p>`}
    <div class="scroll" tabindex="0" role="region" aria-label="Plan"><table>
      <caption class="hidden">Plan</caption>
      <thead><tr>
        <th scope="col">Partition</th><th scope="col" class="numeric">Now</th><th scope="col" class="numeric">New</th>
        <th scope="col" class="numeric">Difference</th><th scope="col">Time of the record</th>
        <th scope="col" class="numeric">Log start</th><th scope="col" class="numeric">End</th><th scope="col">Note</th>
      </tr></thead>
      <tbody>${partitions.slice(0, ROWS).map(
        (it) => html`<tr key=${`${it.topic}-${it.partition}`}>
          <th scope="row">${it.topic}-${it.partition}</th>
          <td class="numeric">${number(it.committed)}</td><td class="numeric">${number(it.new)}</td>
          <td class="numeric">${number(it.difference)}</td><td>${time(it.recordTime)}</td>
          <td class="numeric">${number(it.logStart)}</td><td class="numeric">${number(it.end)}</td>
          <td class="text">${it.note ?? ""}</td>
        </tr>`,
      )}</tbody>
    </table></div>
    ${partitions.length > ROWS &&
    html`<p class="note">The first ${ROWS} of ${number(partitions.length)} partitions; all: kubectl get kor ${reset.name} -o yaml</p>`}`;
}
