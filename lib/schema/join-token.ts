/**
 * A join token as people copy it: `cetus1.ID.SECRET.FINGERPRINT`. The id finds the row, the secret proves that the bearer was given the token, and
 * the fingerprint (SHA-256 of the authority's SubjectPublicKeyInfo, base64url) lets a machine that knows nobody yet make sure whom it tells the secret
 * to, as kubeadm's discovery-token-ca-cert-hash does. Of fixed lengths, so that a token cut off in copying is seen before anybody is asked.
 */
import {CetusError} from '../base/errors';

export interface JoinToken { id: string; secret: string; fingerprint: string }

const SHAPE = /^cetus1\.([a-z0-9]{10})\.([a-z0-9]{32})\.([A-Za-z0-9_-]{43})$/;

export function formatJoinToken({id, secret, fingerprint}: JoinToken): string {
  return `cetus1.${id}.${secret}.${fingerprint}`;
}

/** What is wrong is said without the token: the text may end in a log. */
export function parseJoinToken(text: string): JoinToken {
  const match = SHAPE.exec(text.trim());
  if (!match) throw new CetusError('invalid', 'this is no join token: expected cetus1.ID.SECRET.FINGERPRINT, all of what `cetus node token` printed');
  return {id: match[1], secret: match[2], fingerprint: match[3]};
}
