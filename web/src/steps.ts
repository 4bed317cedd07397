// The console's page: what it shows is fetched again every few seconds, as the service renders it.
const main = document.querySelector<HTMLElement>('#steps');
const stale = document.querySelector<HTMLElement>('#stale');

// A link's token has been used by now: it need not stay in the address bar.
if (new URLSearchParams(location.search).has('token')) history.replaceState(null, '', '/');

let last = '';

async function refresh(): Promise<void> {
  if (!main || !stale || document.hidden) return;
  try {
    const answer = await fetch('/console/steps');
    if (answer.status === 401) {
      location.replace('/'); // the session has ended: sign in again
      return;
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    const html = await answer.text();
    stale.hidden = true;
    if (html === last) return; // what somebody has selected stays selected
    main.innerHTML = html; // rendered and escaped by internal/console
    last = html;
  } catch {
    stale.hidden = false;
  }
}

if (main) {
  setInterval(() => void refresh(), 3000);
  document.addEventListener('visibilitychange', () => void refresh());
}
