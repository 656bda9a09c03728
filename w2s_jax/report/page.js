'use strict';

// Sorts and hides in tables and rows. A fragment does the same from a link:
// #sort=pgr&hide=labels,seeds&filter=xent for the results, #rows=wrong.

const number = text => parseFloat(text.replace(/,/g, ''));

function sort(table, column, descending) {
  const body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  const key = row => row.cells[column].textContent.trim();
  const rows = [...body.rows];
  const isNumber = text =>
      !isNaN(number(text)) || ['', '–', 'undefined'].includes(text);
  const numeric = rows.every(row => isNumber(key(row)));
  if (descending === undefined) descending = numeric;  // the best on top
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => {
    if (!numeric) return sign * key(a).localeCompare(key(b));
    const [x, y] = [number(key(a)), number(key(b))];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);  // undefined last
    return sign * (x - y);
  });
  body.append(...rows);
  for (const head of heads) head.removeAttribute('aria-sort');
  heads[column].setAttribute(
      'aria-sort', descending ? 'descending' : 'ascending');
}

function show(table, column, shown) {
  for (const row of table.rows) row.cells[column].hidden = !shown;
}

function filter(table, text) {
  const words = text.toLowerCase().split(' ');
  for (const row of table.tBodies[0].rows) {
    const all = row.textContent.toLowerCase();
    row.hidden = !words.every(word => all.includes(word));
  }
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function addTools(table) {
  const heads = [...table.tHead.rows[0].cells];
  table.boxes = heads.map((head, i) => {
    const name = head.textContent;
    const button = element('button', {title: `sort by ${name}`}, name);
    button.onclick = () => {
      const order = head.getAttribute('aria-sort');
      sort(table, i, order ? order === 'ascending' : undefined);
    };
    head.replaceChildren(button);
    const box = element('input', {type: 'checkbox', checked: true});
    box.onchange = () => show(table, i, box.checked);
    return box;
  });
  if (table.tBodies[0].rows.length < 4) return;
  const words = element('input', {type: 'search', placeholder: 'filter rows'});
  words.setAttribute('aria-label', 'filter rows');
  words.oninput = () => filter(table, words.value);
  const labels = heads.map(
      (head, i) => element('label', {}, table.boxes[i], head.textContent));
  const columns = element(
      'details', {}, element('summary', {}, 'columns'), ...labels);
  table.parentNode.before(
      element('div', {className: 'tools'}, words, columns));
}

function showRows(which) {
  for (const row of document.querySelectorAll('.row')) {
    row.hidden = which !== 'all' && !row.classList.contains(which);
  }
}

function showStudent(name) {
  for (const student of document.querySelectorAll('.rows')) {
    student.parentNode.hidden = student.parentNode.id !== name;
  }
}

function applyFragment() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const table = document.querySelector('table[data-of=results]');
  const heads = [...table.tHead.rows[0].cells].map(
      head => head.textContent.toLowerCase());
  const column = name => heads.indexOf(name.toLowerCase());
  if (column(asked.get('sort') || '') >= 0) {
    sort(table, column(asked.get('sort')));
  }
  for (const name of (asked.get('hide') || '').split(',')) {
    if (column(name) >= 0) {
      table.boxes[column(name)].checked = false;
      show(table, column(name), false);
    }
  }
  if (asked.has('filter')) filter(table, asked.get('filter'));
  if (asked.get('rows')) showRows(asked.get('rows'));  // #rows is a section
}

document.querySelectorAll('.scroll table').forEach(addTools);
if (innerWidth <= 640) {  // rows are cards there, see page.css
  document.querySelectorAll('[data-wide-only]').forEach(x => x.open = false);
}
const which = document.getElementById('which');
if (which) which.onchange = () => showRows(which.value);
const student = document.getElementById('student');
if (student) {
  student.onchange = () => showStudent(student.value);
  showStudent(student.value);
}
document.querySelectorAll('[data-script]').forEach(x => x.hidden = false);
addEventListener('hashchange', applyFragment);
applyFragment();
