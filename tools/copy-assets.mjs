// Copies what the compiler does not: protocol definitions, OpenAPI documents, seccomp profile and other data beside the code.
import fs from 'node:fs';
import path from 'node:path';

const wanted = /\.(proto|json|yaml|html|css|svg)$/;
const copy = (from, to) => {
  for (const entry of fs.readdirSync(from, {withFileTypes: true})) {
    const source = path.join(from, entry.name);
    const target = path.join(to, entry.name);
    if (entry.isDirectory()) copy(source, target);
    else if (wanted.test(entry.name)) {
      fs.mkdirSync(to, {recursive: true});
      fs.copyFileSync(source, target);
    }
  }
};
copy('lib', 'dist');
