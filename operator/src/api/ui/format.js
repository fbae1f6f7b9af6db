// Numbers and times as text. Unknown (null or undefined) is a dash, never 0.

const integer = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 2 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

/** @param {number|null|undefined} value */
export const number = (value) => (value == null ? "–" : integer.format(value));

/** A number for a small place: 0.4 or 1.2K. @param {number|null|undefined} value */
export function compact(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  return (size < 10 ? small : size < 10000 ? integer : short).format(value);
}

/** A duration. @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return seconds === 0 ? "0 s" : "< 1 s";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** Time of day, with the date if it is not today. @param {string|null|undefined} text */
export function time(text) {
  if (!text) return "–";
  const date = new Date(text);
  const clock = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString()
    ? clock
    : `${date.toLocaleDateString("sv-SE")} ${clock}`;
}

/** How long ago. @param {string|null|undefined} text */
export const ago = (text) =>
  text ? `${duration(Math.max(0, (Date.now() - Date.parse(text)) / 1000))} ago` : "–";
