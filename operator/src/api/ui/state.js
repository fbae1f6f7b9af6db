// The buttons that start, pause and stop a group.
import { html, Component } from "./html.js";

const STATES = [
  ["Running", "Run"],
  ["Paused", "Pause"],
  ["Stopped", "Stop"],
];

export class StateButtons extends Component {
  constructor(props) {
    super(props);
    this.state = { busy: false, text: "", failed: false };
  }

  async request(desiredState) {
    const { group } = this.props;
    this.setState({ busy: true, text: "", failed: false });
    try {
      const path = [group.namespace, group.name].map(encodeURIComponent).join("/");
      const response = await fetch(`/api/v1/groups/${path}/state`, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ desiredState }),
        signal: AbortSignal.timeout(35000),
      });
      const answer = await response.json();
      if (!response.ok) this.setState({ text: answer.detail, failed: true });
      else {
        const done = answer.changed ? `${desiredState} was requested.` : `The group is ${desiredState} already.`;
        this.setState({ text: answer.warning ? `${done} Note: ${answer.warning}.` : done });
      }
    } catch (error) {
      this.setState({ text: `The request did not reach the server: ${error.message}`, failed: true });
    }
    this.setState({ busy: false });
  }

  clicked(state) {
    // Not the attribute disabled: it would take the focus away.
    if (this.state.busy || this.props.disabled) return;
    if (state === "Stopped") this.dialog.showModal();
    else this.request(state);
  }

  render({ group, disabled }, { busy, text, failed }) {
    return html`
      <div class="buttons" role="group" aria-label="State of the group">
        ${STATES.map(
          ([state, label]) => html`<button
            type="button"
            aria-pressed=${group.desiredState === state ? "true" : "false"}
            aria-disabled=${busy || disabled ? "true" : "false"}
            onClick=${() => this.clicked(state)}
          >${label}</button>`,
        )}
      </div>
      <p role="status" class=${failed ? "answer bad" : "answer"}>${text}</p>
      <dialog ref=${(dialog) => (this.dialog = dialog)} aria-labelledby="stop-title">
        <h2 id="stop-title">Stop ${group.name}?</h2>
        <p>The workers finish the records that they have read, commit and end. The lag then grows. Committed
        offsets stay; Run continues there.</p>
        <form method="dialog" class="buttons">
          <button type="submit" class="danger" onClick=${() => this.request("Stopped")}>Stop the group</button>
          <button type="submit" autofocus>Cancel</button>
        </form>
      </dialog>`;
  }
}
