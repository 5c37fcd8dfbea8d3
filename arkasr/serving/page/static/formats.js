// Numbers as text.

const two = number => String(number).padStart(2, "0");

/** 75.4 as 1:15, 3675 as 1:01:15. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** 75.4 as "1 minute 15 seconds". */
export function spokenTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const units = [[Math.floor(whole / 3600), "hour"], [Math.floor(whole / 60) % 60, "minute"], [whole % 60, "second"]];
  const shown = units.filter(([count, unit]) => count || (unit === "second" && whole === 0));
  return shown.map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`).join(" ");
}

/** 1536 as "1.5 KiB". The units are those of the messages of the service. */
export function size(bytes) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let [value, unit] = [bytes, 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit && value < 99.5 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${units[unit]}`;
}
