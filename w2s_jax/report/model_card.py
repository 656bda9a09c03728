"""The model card of an exported stage: README.md of a Hugging Face folder."""

import json

from w2s_jax import assets
from w2s_jax import results
from w2s_jax.models import hf_heads
from w2s_jax.report import groups as groups_lib
from w2s_jax.report import markdown
from w2s_jax.report import report
from w2s_jax.runtime import workdir as workdir_lib

_LABELS = {
  'ground_truth': 'the ground truth of the data set',
  'true': 'the ground truth of the data set, as a control',
  'soft': 'soft labels (probabilities)',
  'hard': 'hard labels (the most probable class)',
  'shuffled': 'shuffled labels, as a control',
  'constant': 'constant labels, as a control',
  'random_errors': 'labels with random errors, as a control',
}


def to_markdown(workdir, stage, form, *, labels, is_pair):
  """Returns the model card of a stage.

  Args:
    workdir: of the study.
    stage: folder of the finished stage.
    form: of hf_heads, how `transformers` opens the model.
    labels: names of the classes, or of the one score.
    is_pair: whether it is a reward model.
  """
  name, _, key = stage.name.rpartition('-')
  finished = workdir_lib.Finished(name, key, stage)
  config, summary = finished.config(), finished.summary()
  parts = [
    _front_matter(config, is_pair),
    f'# {stage.name}',
    'A model of a weak-to-strong study (Burns et al. 2023, arXiv 2312.09390): '
    'a weak supervisor labels data on which a stronger student is trained.',
    markdown.bullets(_facts(stage, config, summary, labels)),
    '## Results',
    _results(workdir, stage),
    '## Use',
    _use(form, is_pair),
    '## How it was made',
    markdown.bullets(_making(workdir, config)),
    '## To publish it',
    'In this folder, after `hf auth login`:',
    '```bash\nhf upload OWNER/NAME .\n```',
    'or `huggingface_hub.HfApi().upload_folder(folder_path=".", '
    'repo_id="OWNER/NAME")` after `create_repo`.',
  ]
  return '\n\n'.join(parts) + '\n'


def _front_matter(config, is_pair):
  lines = ['---', 'library_name: transformers']
  lines.append('pipeline_tag: text-classification')
  kind, _, base = config['weights'].partition(':')
  if kind == 'hf':
    lines.append(f'base_model: {base.partition("@")[0]}')
  tags = ['weak-to-strong', 'w2s_jax'] + ['reward-model'] * is_pair
  return '\n'.join([*lines, 'tags:', *(f'- {tag}' for tag in tags), '---'])


def _facts(stage, config, summary, labels):
  train = config.get('train') or {}
  how = ', '.join(f'{k} {v}' for k, v in train.items() if v != '')
  facts = [
    f'Base model: {config["weights"]}, {_layers(config)}',
    f'Licence of the base model: {_licence(config["weights"])}',
    f'Trained on: {_provenance(config.get("labels"), stage.parent)}',
    f'Loss: {config["loss"]["name"]}',
    f'Adapted: {_method(config)}; {how}',
    f'Rows: {summary["rows"]}, seed {config["seed"]}',
    f'Texts: at most {config["evaluation"]["max_length"]} tokens',
  ]
  if len(labels) > 1:  # a reward model has one score
    names = ', '.join(f'{i} {name}' for i, name in enumerate(labels))
    facts.append(f'Classes: {names}')
  if config.get('judge'):
    judge = _provenance(config['judge'], stage.parent)
    facts.append(f'Early stopping by agreement with: {judge}')
  if 'test_accuracy' in summary:
    facts.append(f'Test accuracy: {summary["test_accuracy"]:.1%}')
  return facts


def _layers(config):
  return f'{config["model"]["architecture"]["num_layers"]} layers'


def _licence(weights):
  kind, _, name = weights.partition(':')
  if kind == 'asset' and name in assets.ASSETS:
    return assets.ASSETS[name].licence
  if kind == 'hf':
    base = name.partition('@')[0]
    return f'see its card, https://huggingface.co/{base}'
  return 'not known; add it before you publish this model'


def _method(config):
  if config.get('features'):
    return 'a linear probe of frozen features'
  if config.get('lora'):
    return f'LoRA of rank {config["lora"]["rank"]}, added to the weights'
  start = ' from a stage before it on' if config.get('start') else ''
  freeze = config.get('train', {}).get('freeze')
  kept = f', but what matches {freeze!r}' if freeze else ''
  return f'all parameters{kept}, fine-tuned{start}'


def _provenance(labels, stages):
  """Says where labels are from: the calls that a stage's config holds."""
  if isinstance(labels, str):  # the key of a stage, or of rows of a data set
    found = sorted(stages.glob(f'*-{labels}/config.json'))
    if not found:
      return f'rows {labels}'
    supervisor = json.loads(found[0].read_text()).get('supervisor')
    if supervisor:  # a stage of its predictions
      return _provenance(supervisor, stages)
    return found[0].parent.name
  if not isinstance(labels, dict):
    return 'labels that its config does not name'
  function = labels['function']['name']
  inner = [_provenance(x, stages) for x in labels['arguments']]
  if function in ('ground_truth', 'true'):
    return _LABELS[function]
  if function == 'predicted':
    return inner[0]
  known = _LABELS.get(function, f'labels of the function {function}')
  return f'{known} from {inner[0]}' if inner else known


def _results(workdir, stage):
  """Returns the study's table of the students that this stage belongs to."""
  path = workdir / 'results.jsonl'
  rows = results.read(workdir) if path.exists() else []
  named = {
    results.name_of(row) for row in rows if stage.name in row['stages'].values()
  }
  rows = [row for row in rows if results.name_of(row) in named]
  if not rows:
    return 'The study had no results with this stage when it was exported.'
  header = ['task', 'models', 'method', 'seeds', 'weak', 'student', 'ceiling']
  header += ['zero-shot', 'PGR']
  lines = [
    [
      group['task'],
      groups_lib.pair(group),
      groups_lib.method(group),
      str(group['n_seeds']),
      *groups_lib.accuracies(group),
      groups_lib.pgr_text(group),
    ]
    for group in report.aggregate(workdir, rows)
  ]
  own = [
    (role.replace('_', '-'), row['seed'])
    for row in rows
    for role, name in row['stages'].items()
    if name == stage.name
  ]
  roles, seeds = (sorted(set(x)) for x in zip(*own))
  return (
    f'{markdown.table(header, lines)}\n\n'
    f'This model is the {" and the ".join(roles)} of seed {seeds[0]}. '
    'Accuracy on the '
    'test rows in %, with standard errors over rows and seeds; PGR = (student '
    '- weak) / (ceiling - weak) with a 95 % interval.'
  )


def _use(form, is_pair):
  trust = ', trust_remote_code=True' if form.own_code else ''
  notes = 'The stock class of `transformers` computes the same logits.'
  if form.own_code:
    notes = (
      f'The class is in `{hf_heads.MODULE}`, since no stock class puts a '
      'linear head on the mean of the states.'
    )
  texts = "['A warm and clever film that stays with you.']"
  answer = 'model(**inputs).logits.softmax(-1)'
  if is_pair:
    texts = "['The first reply.', 'The second reply.']"
    answer = 'model(**inputs).logits[:, 0].softmax(0)  # which is preferred'
    notes += ' A text has one score, its reward.'
  return f"""```python
from transformers import AutoModelForSequenceClassification
from transformers import PreTrainedTokenizerFast

folder = '.'
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
  folder{trust}
).eval()
texts = {texts}
inputs = tokenizer(texts, padding=True, truncation=True, return_tensors='pt')
{answer}
```

{notes} Pad at the right with the token of `pad_token_id`."""


def _making(workdir, config):
  run = _run(workdir)
  versions = run.get('versions') or {}
  known = [f'{k} {v}' for k, v in versions.items() if v]
  facts = (
    [f'Latest command of the study: `{run["command"]}`']
    if run.get('command')
    else []
  )
  if run.get('git_commit'):
    changed = ' with changes' if run.get('git_dirty') else ''
    facts.append(f'Commit of the code: {run["git_commit"]}{changed}')
  if known:
    facts.append(f'Versions: {", ".join(known)}')
  facts.append(
    f'Weights of the base model: sha256 {config["model"]["weights"]}'
  )
  return facts


def _run(workdir):
  path = workdir / 'run.json'
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text())
  except ValueError:  # of no consequence for the model
    return {}
