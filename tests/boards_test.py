"""Drawings of chess positions."""

import re
from xml.etree import ElementTree

import chess
import pytest

from w2s_jax.report import boards
from w2s_jax.tasks import chess as chess_task

FEN = '6k1/5ppp/8/8/8/8/5PPP/R5K1 w - - 0 1'  # Ra8 mates


def place(san):
  return boards.moves(FEN).index(san)


def test_a_board_has_its_pieces_and_an_arrow_for_each_different_move():
  drawing = boards.draw(
    FEN, place('Ra8#'), weak=place('h4'), student=place('Ra8#')
  )
  ElementTree.fromstring(drawing)
  used = re.findall(r'<use href="#([^"]*)"', drawing)
  assert used.count('squares') == 1 and used.count('white-rook') == 1
  assert len(used) == 1 + chess.Board(FEN).occupied.bit_count()
  colours = re.findall('<polygon [^>]*fill="(#[^"]*)"', drawing)
  assert colours == ['#009e73', '#d55e00']  # truth, supervisor
  assert len(drawing) < 4000
  assert 'xmlns' not in drawing and '<defs>' not in drawing


def test_all_that_boards_use_is_defined_once():
  defined = boards.pieces()
  ids = re.findall(r' id="([^"]*)"', defined)
  for name in ('white-king', 'black-pawn', 'squares'):
    assert ids.count(name) == 1
  assert defined.count('<rect') == 64


@pytest.mark.parametrize('choice', (chess_task.NOT_LEGAL, 200))
def test_an_answer_that_is_no_legal_move_has_no_arrow(choice):
  drawing = boards.draw(FEN, place('Ra8#'), weak=choice, student=choice)
  assert drawing.count('<polygon') == 1
