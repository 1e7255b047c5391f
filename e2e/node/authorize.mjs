// authorize.mjs opens the authorization URLs that another program prints: the
// conformance tool runs below it and waits at its callback for a person.
import { spawn } from 'node:child_process';
import { Person } from './person.mjs';

const person = new Person({ issuer: process.env.ISSUER });
const child = spawn(process.argv[2], process.argv.slice(3), { stdio: ['ignore', 'pipe', 'inherit'] });
const seen = new Set();
let text = '';
child.stdout.on('data', (chunk) => {
  process.stdout.write(chunk);
  text += chunk;
  for (const [url] of text.matchAll(/https?:\/\/\S+\/oauth\/authorize\?\S+(?=\s)/g)) {
    if (seen.has(url)) continue;
    seen.add(url);
    person.authorize(url).then((back) => fetch(back)).then((r) => r.text()).catch((error) => { process.stderr.write(`${error.stack}\n`); child.kill(); process.exitCode = 1; });
  }
});
child.on('exit', (code) => { process.exitCode ||= code ?? 1; });
