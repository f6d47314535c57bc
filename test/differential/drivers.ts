/** Drivers that are not there: dockerd looks for each as a plugin, for many seconds, so these are asked beside the others. */
import {mistake, type Script} from './step';

export const DRIVERS: Script = {noun: 'drivers', steps: [
  mistake('a network of no driver', 'POST /networks/create', {Name: 'd-pigeon', Driver: 'pigeon'}),
  mistake('a volume of no driver', 'POST /volumes/create', {Name: 'd-driven', Driver: 'nosuch'}),
]};
