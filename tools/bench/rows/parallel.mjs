// Key `parallel`: a hundred `docker run` at the same moment, until the last has ended.
const MANY = 100;

export default ({row, docker}) => row('parallel', `${MANY} parallel docker run --rm busybox true`, 3, 0.6, (engine) =>
  Promise.all(Array.from({length: MANY}, () => docker(engine, ['run', '--rm', 'busybox', 'true']))));
