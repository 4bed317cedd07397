// The desktop's page: shows the screen of the user's WorkSpace and connects again whenever there is one.
import RFB from '@novnc/novnc';

// As internal/gateway's type shown.
interface Desktop {
  id: string;
  name: string;
  state: string;
  screen: boolean;
  advice: string;
}

function element<T extends HTMLElement>(id: string): T {
  const e = document.getElementById(id);
  if (!e) throw new Error(`the page has no #${id}`);
  return e as T;
}

const name = element('name');
const pick = element<HTMLSelectElement>('pick');
const state = element('state');
const keys = element<HTMLButtonElement>('keys');
const full = element<HTMLButtonElement>('full');
const screen = element('screen');
const notice = element('notice');

const lookEvery = 2000; // milliseconds

let desktops: Desktop[] = [];
let chosen = '';
let rfb: RFB | undefined; // the connection that is there or being made
let connected = false;
let lostAt = 0;

function say(title: string, text: string): void {
  const [h, p] = [notice.querySelector('h1'), notice.querySelector('p')];
  // Screen readers read what changes, so nothing is written that is there already.
  if (h && h.textContent !== title) h.textContent = title;
  if (p && p.textContent !== text) p.textContent = text;
  notice.hidden = title === '';
}

function show(): void {
  const d = desktops.find((d) => d.id === chosen) ?? desktops[0];
  pick.hidden = desktops.length < 2;
  name.hidden = !pick.hidden;
  const options = desktops.map((d) => `${d.name} (${d.id})`);
  if (options.join() !== [...pick.options].map((o) => o.text).join()) {
    pick.replaceChildren(...desktops.map((d, i) => new Option(options[i], d.id)));
  }
  if (!d) {
    chosen = '';
    drop();
    document.title = 'WorkSpace';
    name.textContent = 'WorkSpace';
    state.textContent = '';
    say('You have no WorkSpace', 'Ask your administrator for one. This page shows it as soon as it is there.');
    return;
  }
  chosen = pick.value = d.id;
  document.title = name.textContent = d.name;
  name.title = d.id;
  state.textContent = d.state;
  state.dataset.state = d.state;
  keys.disabled = !connected;
  if (connected) {
    say('', '');
  } else {
    say(`${d.name} is ${d.state}`, d.advice);
    if (d.screen && !rfb && Date.now() - lostAt >= lookEvery) connect(d);
  }
}

function drop(): void {
  const old = rfb;
  rfb = undefined;
  connected = false;
  old?.disconnect();
}

function connect(d: Desktop): void {
  const url = new URL('/desktop/connect', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  url.searchParams.set('workspace', d.id);
  const mine = new RFB(screen, url.href, { shared: true, wsProtocols: ['binary'] });
  rfb = mine;
  mine.scaleViewport = true;
  mine.focusOnClick = true;
  mine.background = 'transparent';
  mine.addEventListener('connect', () => {
    if (rfb !== mine) return;
    connected = true;
    show();
    mine.focus();
  });
  mine.addEventListener('disconnect', () => {
    if (rfb !== mine) return; // another was chosen meanwhile
    rfb = undefined;
    connected = false;
    lostAt = Date.now();
    void look();
  });
}

let looking = false;

async function look(): Promise<void> {
  if (looking) return;
  looking = true;
  try {
    const answer = await fetch('/desktop/workspaces');
    if (answer.status === 401) {
      location.replace('/desktop'); // the session has ended: sign in again
      return;
    }
    if (!answer.ok) throw new Error(`${answer.status}`);
    desktops = (await answer.json()) as Desktop[];
    show();
  } catch {
    if (!connected) say('The service does not answer', 'This page tries again by itself.');
  } finally {
    looking = false;
  }
}

pick.addEventListener('change', () => {
  chosen = pick.value;
  drop();
  lostAt = 0;
  show();
});
keys.addEventListener('click', () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
full.addEventListener('click', () => {
  void (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen());
  rfb?.focus();
});
document.addEventListener('fullscreenchange', () => {
  full.textContent = document.fullscreenElement ? 'Leave full screen' : 'Full screen';
});

say('Connecting', 'Looking for your WorkSpace …');
void look();
setInterval(() => void look(), lookEvery);
