// person.mjs plays the human: it opens the authorization URL with a cookie jar,
// fills in whatever form it is shown (sign-in, consent) and stops where the
// browser would leave for the client's redirect URI, which it returns. It reads
// the pages as a browser without JavaScript does.
import assert from 'node:assert/strict';

const decode = (s) => s.replace(/&#(\d+);/g, (_, n) => String.fromCharCode(n)).replace(/&#x([0-9a-f]+);/gi, (_, n) => String.fromCharCode(parseInt(n, 16)))
  .replace(/&quot;/g, '"').replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&');

function attributes(tag) {
  const out = {};
  for (const m of tag.matchAll(/([a-zA-Z-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+)))?/g)) {
    out[m[1].toLowerCase()] = decode(m[2] ?? m[3] ?? m[4] ?? '');
  }
  return out;
}

export function forms(html) {
  return [...html.matchAll(/<form\b([^>]*)>([\s\S]*?)<\/form>/gi)].map(([, head, body]) => ({
    ...attributes(head),
    fields: [...body.matchAll(/<(input|button)\b([^>]*)>/gi)].map(([, element, rest]) => ({ element: element.toLowerCase(), ...attributes(rest) })),
  }));
}

export class Person {
  constructor({ issuer, username = 'dev', password = 'dev' }) {
    this.issuer = issuer;
    this.username = username;
    this.password = password;
    this.cookies = new Map();
  }

  async open(url, init = {}) {
    const headers = { accept: 'text/html', ...init.headers };
    if (this.cookies.size) headers.cookie = [...this.cookies].map(([k, v]) => `${k}=${v}`).join('; ');
    const response = await fetch(url, { ...init, headers, redirect: 'manual' });
    for (const line of response.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const at = pair.indexOf('=');
      this.cookies.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return response;
  }

  // authorize answers the URL that the browser is sent to at the client.
  // untick: scopes the person does not give; tick: offered ones the person adds.
  async authorize(url, { decision = 'approve', untick = [], tick = [] } = {}) {
    let at = new URL(url);
    let response = await this.open(at);
    for (let step = 0; step < 12; step++) {
      if ([301, 302, 303, 307, 308].includes(response.status)) {
        assert.notEqual(response.status, 307, 'a redirect must not repeat the POST');
        assert.notEqual(response.status, 308, 'a redirect must not repeat the POST');
        at = new URL(response.headers.get('location'), at);
        if (at.origin !== new URL(this.issuer).origin) return at;
        response = await this.open(at);
        continue;
      }
      const html = await response.text();
      if (response.status !== 200) throw Object.assign(new Error(`page ${at.pathname} answered ${response.status}: ${html.replace(/<style[\s\S]*?<\/style>/g, '').replace(/<[^>]+>/g, ' ').replace(/\s+/g, ' ').slice(0, 400)}`), { status: response.status });
      const form = forms(html).find((f) => f.fields.some((x) => x.name === 'password' || x.name === 'decision'));
      if (!form) {
        const away = html.match(/<meta\s+http-equiv="refresh"\s+content="[^"]*url=([^"]+)"/i) ?? html.match(/<a\b[^>]*\bhref="([^"]+)"/i);
        assert.ok(away, `no form and no way on at ${at.pathname}: ${html.slice(0, 300)}`);
        return new URL(decode(away[1]), at);
      }
      const body = new URLSearchParams();
      for (const field of form.fields) {
        if (!field.name) continue;
        if (field.type === 'checkbox') {
          const ticked = ('checked' in field && !untick.includes(field.value)) || tick.includes(field.value);
          if (ticked) body.append(field.name, field.value);
        } else if (field.name === 'username') body.append('username', this.username);
        else if (field.name === 'password') body.append('password', this.password);
        else if (field.name === 'decision') { if (field.value === decision) body.append('decision', decision); }
        else if (field.element === 'input' && field.type !== 'submit') body.append(field.name, field.value ?? '');
      }
      const target = new URL(form.action || at.href, at);
      response = await this.open(target, { method: 'POST', body, headers: { origin: at.origin, 'sec-fetch-site': 'same-origin', 'content-type': 'application/x-www-form-urlencoded' } });
      at = target;
    }
    throw new Error('the pages go round in circles');
  }
}
