/**
 * Some proofs are of the long kind: what one case shows, hundreds show better. `make test` plays a short set of them, with every kind of case in it, and
 * `make test-long` (CETUS_LONG=1) the whole.
 */
export const LONG = process.env.CETUS_LONG === '1';

/** How many of something are tried. */
export const ofLong = <T>(short: T, long: T): T => (LONG ? long : short);
