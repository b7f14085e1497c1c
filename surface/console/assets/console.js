/* Reprieve console: everything here is a convenience. Every page reads and every form works without it. */
(() => {
  const root = document.documentElement, store = (k, v) => { try { return v === undefined ? localStorage.getItem(k) : localStorage.setItem(k, v) } catch { return null } };

  // theme: the server sets data-theme from a cookie; here it is a local preference, ?theme=dark wins for previews
  const wanted = new URLSearchParams(location.search).get('theme') || store('theme');
  if (wanted) root.dataset.theme = wanted;
  document.querySelectorAll('[data-theme-toggle]').forEach(b => b.addEventListener('click', () => {
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = dark ? 'light' : 'dark'; store('theme', root.dataset.theme);
  }));

  // typed confirmation: the button is really disabled until the name matches (the server checks again)
  document.querySelectorAll('form[data-confirm]').forEach(f => {
    const field = f.querySelector('[data-confirm-field]'), go = f.querySelector('.destroy'), say = f.querySelector('[data-confirm-say]');
    const sync = () => { const ok = field.value === f.dataset.confirm; go.disabled = !ok; if (say) say.textContent = ok ? say.dataset.ready : say.dataset.wait };
    field.addEventListener('input', sync); sync();
  });

  // countdowns tick only where the server put a number of seconds
  document.querySelectorAll('[data-left]').forEach(el => {
    let s = +el.dataset.left; const two = n => String(n).padStart(2, '0');
    const draw = () => { el.textContent = s >= 3600 ? `${Math.floor(s / 3600)} h ${two(Math.floor(s % 3600 / 60))} min` : `${Math.floor(s / 60)}:${two(s % 60)}` };
    draw(); if (!root.dataset.still) setInterval(() => { if (s > 0) { s--; draw() } }, 1000);
  });

  // copy buttons
  document.querySelectorAll('[data-copy]').forEach(b => b.addEventListener('click', async () => {
    await navigator.clipboard.writeText(document.querySelector(b.dataset.copy).textContent); b.lastChild.textContent = 'Copied';
  }));

  // keyboard: / search · g then a letter to go · j k move in lists · ? help. There is no key that approves.
  let g = 0; const go = { l: 'live', h: 'holds', u: 'undo', a: 'agents', s: 'systems', p: 'policies', r: 'recovery', t: 'audit', c: 'checklist' };
  addEventListener('keydown', e => {
    if (e.target.closest('input,textarea,select') || e.metaKey || e.ctrlKey || e.altKey) return;
    if (e.key === '/') { document.querySelector('[type=search]')?.focus(); e.preventDefault() }
    else if (e.key === 'g') g = Date.now();
    else if (go[e.key] && Date.now() - g < 900) location.href = '/' + go[e.key];
    else if (e.key === 'j' || e.key === 'k') {
      const rows = [...document.querySelectorAll('[data-row]')]; if (!rows.length) return;
      const at = rows.findIndex(r => r.contains(document.activeElement)), to = rows[Math.min(rows.length - 1, Math.max(0, at + (e.key === 'j' ? 1 : -1)))];
      (to.matches('a,summary,button') ? to : to.querySelector('a,summary,button'))?.focus();
    }
  });
})();

/* Passkeys: the page asks, the authenticator signs, the server checks. The challenge is the digest of what will be done. */
(() => {
  const bytes = t => Uint8Array.from(atob(t.replace(/-/g, '+').replace(/_/g, '/')), c => c.charCodeAt(0));
  const text = b => btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  const tell = (form, words) => { const p = form.querySelector('[data-say]'); if (p) { p.textContent = words; p.hidden = !words } };
  const token = document.querySelector('meta[name="form-token"]')?.content;
  const ask = async (path, body, kind) => {
    const headers = { 'Content-Type': kind || 'application/json' }; if (token) headers['X-Form-Token'] = token;
    const answer = await fetch(path, { method: 'POST', headers, body, redirect: 'error' });
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(json.detail || 'Nothing was done: the gateway did not answer.');
    return json;
  };
  const reason = e => e.name === 'NotAllowedError' ? 'The passkey was cancelled. Nothing was done.' : e.message;
  const assert = async (challenge, credentials) => {
    const got = await navigator.credentials.get({ publicKey: { challenge: bytes(challenge), rpId: document.body.dataset.rp, userVerification: 'required', timeout: 120000,
      allowCredentials: (credentials || []).map(id => ({ type: 'public-key', id: bytes(id) })) } });
    return { credential: text(got.rawId), client_data: text(got.response.clientDataJSON), authenticator_data: text(got.response.authenticatorData), signature: text(got.response.signature) };
  };
  const wait = (form, seconds) => new Promise((go, stop) => {
    if (!seconds) return go();
    const box = form.querySelector('[data-stop]'), left = box.querySelector('b'), button = box.querySelector('button');
    let s = seconds; left.textContent = s; box.hidden = false; button.focus();
    const tick = setInterval(() => { s--; left.textContent = s; if (s <= 0) { clearInterval(tick); box.hidden = true; go() } }, 1000);
    button.onclick = () => { clearInterval(tick); box.hidden = true; stop(new Error('Stopped. Nothing was done.')) };
  });

  // a form that a passkey has to confirm: propose, sign, wait where there is a delay, confirm
  document.addEventListener('submit', async event => {
    const form = event.target; if (!form.matches('[data-passkey]')) return;
    event.preventDefault(); tell(form, '');
    const button = event.submitter || form.querySelector('button[type=submit]'); button.disabled = true;
    try {
      const fields = new URLSearchParams(new FormData(form)); if (button.name) fields.set(button.name, button.value);
      const asked = await ask(form.getAttribute('action'), fields, 'application/x-www-form-urlencoded');
      const assertion = await assert(asked.challenge, asked.credentials);
      await wait(form, +form.dataset.delay || 0);
      const done = await ask('/confirm', JSON.stringify({ proposal: asked.proposal, assertion }));
      if (done.html) { form.outerHTML = done.html; document.querySelector('[data-shown]')?.focus() } else location.href = asked.then;
    } catch (e) { tell(form, reason(e)); button.disabled = false }
  });

  // signing in
  document.querySelector('form[data-signin]')?.addEventListener('submit', async event => {
    event.preventDefault(); const form = event.target; tell(form, '');
    try {
      const { challenge } = await ask('/signin/challenge', '{}');
      const done = await ask('/signin', JSON.stringify({ challenge, assertion: await assert(challenge) }));
      location.href = form.dataset.next || done.then;
    } catch (e) { tell(form, reason(e)) }
  });

  // enrolling: the secret is in the fragment, which no server and no log sees before this asks
  const enrol = document.querySelector('form[data-enrol]');
  if (enrol) {
    const secret = location.hash.slice(1), recover = document.querySelector('form[data-recover]'); let invited;
    // without an invitation: a code from paper takes its place, however it is written
    recover.hidden = !!secret; enrol.hidden = !secret;
    recover.addEventListener('submit', event => { event.preventDefault(); location.hash = recover.elements.recovery.value.trim().toLowerCase().replace(/\s+/g, ''); location.reload() });
    if (secret) ask('/enrol/begin', JSON.stringify({ secret })).then(answer => {
      invited = answer; enrol.querySelector('[data-who]').textContent = answer.operator;
      enrol.querySelector('[data-code]').hidden = !answer.needs_code; enrol.querySelector('button').disabled = false;
    }).catch(e => tell(enrol, reason(e)));
    enrol.addEventListener('submit', async event => {
      event.preventDefault(); tell(enrol, '');
      try {
        const id = new TextEncoder().encode(invited.operator);
        const made = await navigator.credentials.create({ publicKey: { challenge: bytes(invited.challenge), rp: { id: document.body.dataset.rp, name: 'Reprieve' },
          user: { id, name: invited.operator, displayName: invited.operator }, pubKeyCredParams: [-7, -8, -257].map(alg => ({ type: 'public-key', alg })),
          authenticatorSelection: { residentKey: 'required', userVerification: 'required' }, attestation: 'none', timeout: 120000,
          excludeCredentials: invited.exclude.map(id => ({ type: 'public-key', id: bytes(id) })) } });
        const r = made.response, key = r.getPublicKey(); if (!key) throw new Error('This passkey is of a sort that is not known here. Nothing was done.');
        const code = enrol.elements.code.value.trim();
        await ask('/enrol', JSON.stringify({ secret, code: code || null, passkey: { credential: text(made.rawId), public_key: text(key), client_data: text(r.clientDataJSON),
          authenticator_data: text(r.getAuthenticatorData()), label: enrol.elements.label.value } }));
        location.href = '/signin?enrolled=1';
      } catch (e) { tell(enrol, reason(e)) }
    });
  }
})();

/* The feed: newest first, bounded, and still while it is read. */
(() => {
  const feed = document.getElementById('feed'), dot = document.querySelector('[data-feed-state]'); if (!feed || !dot) return;
  const MOST = 300, newer = dot.querySelector('button'), words = dot.querySelector('span'); let held = [], paused = false;
  const hovering = () => feed.matches(':hover') || feed.contains(document.activeElement) || scrollY > 400;
  const draw = () => { words.textContent = paused ? 'Paused while you read.' : 'Live'; newer.hidden = !held.length; newer.textContent = `${held.length} newer` };
  const put = html => { const t = document.createElement('template'); t.innerHTML = html;
    for (const li of [...t.content.children].reverse()) { const old = document.getElementById(li.id); if (old) old.replaceWith(li); else feed.prepend(li) }
    while (feed.children.length > MOST) feed.lastElementChild.remove(); filter() };
  const flush = () => { const all = held; held = []; all.forEach(put); draw() };
  document.body.addEventListener('htmx:sseBeforeMessage', e => {
    if (e.detail.type !== 'action') return;
    e.preventDefault(); paused = hovering(); held.push(e.detail.data); if (held.length > 200) held.shift(); if (!paused) flush(); else draw();
  });
  newer.addEventListener('click', flush); feed.addEventListener('mouseleave', () => { paused = hovering(); if (!paused) flush() });
  const pick = () => document.querySelector('form.filters input[name=f]:checked')?.value || 'all';
  function filter() { const f = pick(); for (const li of feed.children) li.hidden = f !== 'all' && !(li.dataset.f || '').split(' ').includes(f) }
  document.querySelectorAll('form.filters input').forEach(i => i.addEventListener('change', filter)); draw();
})();
