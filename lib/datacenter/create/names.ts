/** Container names: the Engine's rule for given ones, and random ones of our own list (sky and sea). */
import {CetusError} from '../../base/errors';

const VALID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

export function checkName(given: string): string {
  const name = given.replace(/^\//, '');
  if (!VALID.test(name) || name.length > 255) throw new CetusError('invalid', `Invalid container name (${given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  return name;
}

const ADJECTIVES = ('able amber ancient arctic azure bold brave breezy bright brisk calm careful cheerful clever coral cosmic crisp curious dapper daring deep distant eager early '
  + 'electric faithful famous fearless fleet floating fluent gallant gentle gifted glowing golden graceful grand happy hardy hidden honest humble icy jolly keen kind lively '
  + 'lucid lunar magnetic mellow merry mighty misty modest nimble noble northern patient playful polar proud quick quiet radiant rapid restful roaming rolling royal salty '
  + 'serene sharp shining silent silver sleek smooth snug solar sonic southern spry stable starry steady stellar sturdy sunny swift tidal tranquil trusty upbeat valiant '
  + 'velvet vivid wandering warm wavy western wild windy wise witty zesty').split(' ');
const NOUNS = ('albatross andromeda anchor antares aquila archipelago atlas atoll aurora barnacle bay beacon beluga bowhead breaker buoy canopus capella cetacean comet compass coral corvus '
  + 'current cygnus delta deneb dolphin dorado draco driftwood eclipse eddy estuary fathom fjord galaxy galleon gannet gemini glacier grampus gull gulf halyard harbor harpoon '
  + 'helix horizon humpback hydra iceberg island jetty kelp keel kraken lagoon lantern lighthouse lyra mariner marlin mast meridian meteor mira mist moon narwhal nautilus nebula '
  + 'neptune nova ocean orbit orca orion otter pegasus pelican perseus petrel phoenix pilot plankton polaris porpoise procyon pulsar quasar reef regulus rigel rorqual rudder '
  + 'sail saturn schooner scorpio seal sextant shoal sirius skipper sloop sonar spica spray starfish strait surf tempest tern tide triton tundra vega vela voyager walrus wave whale zenith').split(' ');

const pick = (words: readonly string[], hex: string): string => words[Number.parseInt(hex, 16) % words.length]!;

/** `hex` gives the randomness. From the second try on a digit makes room where the pairs are used up. */
export function randomName(hex: string, attempt: number): string {
  return `${pick(ADJECTIVES, hex.slice(0, 8))}_${pick(NOUNS, hex.slice(8, 16))}${attempt > 0 ? Number.parseInt(hex.slice(16, 20), 16) % 10 ** attempt : ''}`;
}
